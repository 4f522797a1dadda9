"""Bills of materials of models: making, checking, comparing and showing CycloneDX and SPDX documents."""
