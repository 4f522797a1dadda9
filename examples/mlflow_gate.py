"""Promote a version of a registered model in MLflow only if it is admitted by a policy.

`python examples/mlflow_gate.py NAME VERSION --policy policy.toml --alias champion [--signature FILE]`, with
MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI as for MLflow itself. Needs mlflow (mlflow-skinny is enough).

The version's files are fetched, and `ostiary.admit` decides by the policy. They must be signed under NAME: sign with
`ostiary sign FOLDER --name NAME`, and log the signature beside the folder as `FOLDER.sig`, or give it here; a stated
scan is `FOLDER.scan`, a bill of materials `FOLDER.bom`. What was decided goes to tags of the version
(`ostiary.decision`, `.root`, `.signers`, `.reasons`, `.time`) and, whole, to the artifact
`ostiary/decision-VERSION.json` of its run. Only then is the alias set; a refused version that holds it loses it. Exit
code 0: promoted, 1: not admitted, with every reason, 2: something could not be read, and nothing was promoted.

What is served must be checked where it is served: load it there by `ostiary.load` with the same policy.
"""

import argparse
import contextlib
import sys
import tempfile
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from ostiary import admit
from ostiary.core.errors import OstiaryError

PASSED = ("admitted", "exempted")


def decide(client: MlflowClient, name: str, version: str, policy: str, signature: str | None) -> Any:
    """The decision about the version's files, which are fetched into a folder that is gone when this returns."""
    # The place the version was registered from: under `models:/` MLflow adds a file of its own, which nobody signed.
    source = client.get_model_version(name, version).source
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifacts(artifact_uri=source, dst_path=folder)
        beside = source.rstrip("/")
        signature = signature or download_artifacts(artifact_uri=f"{beside}.sig", dst_path=folder)
        for suffix in ("scan", "bom"):
            # Where there is none, the policy says whether there must be.
            with contextlib.suppress(MlflowException, OSError):
                download_artifacts(artifact_uri=f"{beside}.{suffix}", dst_path=folder)
        return admit(path, policy=policy, signature=signature, name=name)


def record(client: MlflowClient, name: str, version: str, decision: Any) -> None:
    """What was decided, as an artifact of the version's run and as tags of the version."""
    # The folder of this machine says nothing to others.
    told = decision.model_copy(update={"subject": f"models:/{name}/{version}"})
    client.log_text(client.get_model_version(name, version).run_id, told.to_json(), f"ostiary/decision-{version}.json")
    tags = {
        "root": decision.root or "",
        "signers": ", ".join(decision.signers),
        "reasons": ", ".join(sorted({reason.code for reason in decision.reasons})),
        "time": decision.created,
        "decision": decision.decision,
    }
    for key, value in tags.items():
        client.set_model_version_tag(name, version, f"ostiary.{key}", value)


def promote(client: MlflowClient, name: str, version: str, alias: str, policy: str, signature: str | None) -> Any:
    """Decide, write down what was decided, then give or take the alias; gives the decision."""
    # Whatever goes wrong from here on, no decision of an earlier day stands for this one.
    client.set_model_version_tag(name, version, "ostiary.decision", "pending")
    decision = decide(client, name, version, policy, signature)
    record(client, name, version, decision)
    if decision.decision in PASSED:
        client.set_registered_model_alias(name, alias, version)
    elif holder(client, name, alias) == str(version):
        client.delete_registered_model_alias(name, alias)
    return decision


def holder(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that has the alias."""
    with contextlib.suppress(MlflowException):
        return str(client.get_model_version_by_alias(name, alias).version)
    return None


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Promote a version of a registered model if it is admitted.")
    parser.add_argument("name")
    parser.add_argument("version")
    parser.add_argument("--policy", required=True, help="a policy, a trust store or a public key")
    parser.add_argument("--alias", required=True, help="the alias that means promoted")
    parser.add_argument("--signature", help="a local file; by default the artifact beside the model")
    given = parser.parse_args(args)
    try:
        decision = promote(MlflowClient(), given.name, given.version, given.alias, given.policy, given.signature)
    except (OstiaryError, MlflowException, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for reason in decision.reasons:
        print(f"{reason.code} {reason.subject}: {reason.message}")
    passed = decision.decision in PASSED
    print(f"{given.name} version {given.version}: {decision.decision}" + (f", now {given.alias}" if passed else ""))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
