"""Codes of refusals OS740 to OS779: whom one trusts, what a policy allows, and what certificates say."""

from ostiary.core.code import Code

VERIFY, LOAD = "ostiary verify, ostiary.load", "ostiary.load"

TRUST_REFUSALS: tuple[Code, ...] = (
    Code(
        "OS740",
        "key revoked",
        "The trust store revokes the key that signed.",
        VERIFY,
        "a key that was revoked when it was replaced: what it signed must be signed anew",
        "do not use the model before its producer has signed it with another key",
    ),
    Code(
        "OS741",
        "model revoked",
        "The trust store revokes this very model.",
        VERIFY,
        "none: somebody put it there",
        "ask who keeps the trust store why",
    ),
    Code(
        "OS742",
        "old trust store",
        "A newer version of this trust store was used here before, or another one under the same version: what was "
        "revoked meanwhile may not stand in it.",
        VERIFY,
        "a store that was edited without counting its version up",
        "get the newest store; count `version` up with each change",
    ),
    Code(
        "OS743",
        "trust store expired",
        "The trust store is past its day: what was revoked meanwhile does not stand in it.",
        VERIFY,
        "a store that nobody renewed",
        "get the newest store",
    ),
    Code(
        "OS744",
        "signer out of time",
        "The identity that signed has expired or is not valid yet.",
        VERIFY,
        "a clock that is wrong",
        "let its holder renew it in the trust store",
    ),
    Code(
        "OS745",
        "signer without the role",
        "The key is trusted, but not for this: a scanner does not vouch for where a model comes from.",
        VERIFY,
        "a role that was forgotten in the trust store",
        "check the roles in the trust store",
    ),
    Code(
        "OS746",
        "signer of other models",
        "The key is trusted, but not for a model of this name.",
        VERIFY,
        "a model that was renamed",
        "check `models` in the trust store",
    ),
    Code(
        "OS747",
        "signed too long ago, or in the future",
        "The signature is older than the trust store allows, or its time has not come yet.",
        VERIFY,
        "a clock that is wrong",
        "ask its producer to sign anew",
    ),
    Code(
        "OS748",
        "clock set back",
        "The clock shows a time before one that was seen here: expired things would count again.",
        VERIFY,
        "a machine whose clock ran ahead for a while",
        "set the clock; docs/provenance.md says where the latest time is kept",
    ),
    Code(
        "OS749",
        "version below the floor",
        "The model is older than the oldest version that the trust store allows under this name.",
        VERIFY,
        "a model signed without a version",
        "use a newer version",
    ),
    Code(
        "OS750",
        "not the pinned file",
        "The policy or the trust store is not the one whose digest was pinned.",
        VERIFY,
        "a store that was renewed",
        "make sure who changed it, and pin the new digest",
    ),
)

LOAD_REFUSALS: tuple[Code, ...] = (
    Code(
        "OS760",
        "format not allowed",
        "The policy does not allow models, or files beside them, in this format.",
        LOAD,
        "a checkpoint beside the safetensors that are used",
        "`ostiary convert` it to safetensors and sign anew, or allow the format in the policy",
    ),
    Code(
        "OS761",
        "wants code run",
        "A configuration names code of its own (`auto_map`) that loaders would run.",
        LOAD,
        "models that a library has taken in since",
        "rebuild it from an architecture that the library knows; `remote_code` in the policy names exceptions",
    ),
    Code(
        "OS762",
        "values that are no numbers",
        "A tensor holds NaN or infinity.",
        LOAD,
        "masks that hold minus infinity on purpose",
        "ask its producer; `finite = false` in the policy allows it",
    ),
    Code(
        "OS763",
        "tensors not as specified",
        "Names, types or shapes of the tensors are not those that were signed, or one tensor is in two files.",
        LOAD,
        "none known",
        "ask its producer to sign anew",
    ),
    Code(
        "OS764",
        "larger than the policy allows",
        "The model, one of its files or the number of its tensors exceeds a limit of the policy.",
        LOAD,
        "a model that is larger than most",
        "raise the limit in the policy if you expect it",
    ),
    Code(
        "OS765",
        "adapter without its base",
        "An adapter was to be loaded and the model it belongs to was not verified with it.",
        LOAD,
        "none: an adapter does nothing without its base, and a verified half is no verified model",
        "give `base`, signed under the same policy",
    ),
    Code(
        "OS766",
        "template that reaches out",
        "A chat template uses names that lead to the interpreter, or reads other files.",
        LOAD,
        "templates that use Jinja in unusual ways",
        "read the template; take the part out and sign anew",
    ),
    Code(
        "OS769",
        "not read as weights",
        "The inspection passed a checkpoint that torch does not read with weights alone.",
        LOAD,
        "tensors of kinds that torch reads only with their classes",
        "`ostiary convert` it, or ask its author for safetensors",
    ),
)

CERTIFICATE_REFUSALS: tuple[Code, ...] = (
    Code(
        "OS770",
        "certificate out of its time",
        "The certificate, or one above it, has expired or is not valid yet. Without a trusted time of signing it "
        "counts what the clock says now.",
        VERIFY,
        "a model that was signed while the certificate was valid",
        "ask its producer to sign anew",
    ),
    Code(
        "OS771",
        "certificate for something else",
        "The certificate was not issued for signing code: that of a web server must not sign models.",
        VERIFY,
        "an authority that issues certificates without a purpose",
        "ask its producer for a certificate with the purpose code signing",
    ),
    Code(
        "OS772",
        "certificate of somebody else",
        "The certificate is for a person or service that your trust store does not name, or another service vouched "
        "for them.",
        VERIFY,
        "a producer who signs under a new address",
        "make sure who it is, and add `subject` and `issuer` or `authority` as they are",
    ),
    Code(
        "OS773",
        "not in a transparency log",
        "A keyless signature without a proof that it stands in a transparency log, or without a trusted time.",
        VERIFY,
        "none known",
        "ask its producer to sign anew",
    ),
    Code(
        "OS774",
        "no trust configuration",
        "The configuration that says which logs and authorities of sigstore are real is missing or damaged; without "
        "network none is fetched.",
        VERIFY,
        "none known",
        "install the sigstore package anew, or name a configuration as `sigstore` in the trust store",
    ),
)
