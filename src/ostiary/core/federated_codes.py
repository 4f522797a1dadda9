"""Codes of federated learning: OS501 to OS517 replies that reach no rule, OS521 to OS539 what a rule says of a client.

OS540 and OS541 what is wrong with signed rounds. And the cautions about rounds, OS926 to OS930, OS938 and OS939.
"""

from ostiary.core.code import Code

ADMISSION = "admission, before any rule"
FLOWER = "admission of Flower's replies, before any rule"
_AGAIN = "leave the client out until it is mended; if it goes on, ask its owner"

FEDERATED_REFUSALS: tuple[Code, ...] = (
    Code(
        "OS501",
        "reply not finite",
        "A tensor of the reply holds NaN or infinity. One such value in an average ruins the whole model.",
        ADMISSION,
        "a client whose training diverged",
        _AGAIN,
    ),
    Code(
        "OS502",
        "other tensors than the model's",
        "The reply lacks a tensor of the global model, or brings one that it does not have.",
        ADMISSION,
        "a client that runs an older or newer version of the model",
        "bring the client to the version of the model that the server has",
    ),
    Code(
        "OS503",
        "other shapes than the model's",
        "A tensor of the reply has another shape than in the global model.",
        ADMISSION,
        "a client that runs an older or newer version of the model",
        "bring the client to the version of the model that the server has",
    ),
    Code(
        "OS504",
        "other types than the model's",
        "A tensor of the reply holds numbers of another type than in the global model.",
        ADMISSION,
        "a client that trains in half precision and forgets to convert its weights back",
        "let the client send the types that it was given",
    ),
    Code(
        "OS505",
        "update far too long",
        "The update is many times as long as the median of the round, or its length overflows: it would outweigh all "
        "others.",
        ADMISSION,
        "a client with far more data or steps than the others",
        "look at the client's settings; raise `longest` if clients differ that much",
    ),
    Code(
        "OS506",
        "odd number of examples",
        "The client claims no examples, fewer than none, or a number that is not finite.",
        ADMISSION,
        "a client whose data set is empty this round",
        _AGAIN,
    ),
    Code(
        "OS507",
        "several replies of one client",
        "More than one reply came under one name. Which of them is the client's cannot be told, so none counts.",
        ADMISSION,
        "a transport that repeats messages",
        "find out who sends under this name",
    ),
    Code(
        "OS508",
        "reply to another round",
        "The reply answers another round than this one; its update starts from another model.",
        ADMISSION,
        "a slow client whose reply came late",
        "give clients more time, or ask fewer of them",
    ),
    Code(
        "OS509",
        "claimed examples not believed",
        "The client claims so many more examples than the others that only a part of them counts. It is not refused.",
        ADMISSION,
        "a client that has that much data",
        "weigh all clients alike, or raise `most`",
    ),
    Code(
        "OS510",
        "reply that was not asked for",
        "A reply came from a node that the server did not ask in this round.",
        FLOWER,
        "none: a client answers what it is asked",
        "look at who may connect to the SuperLink",
    ),
    Code(
        "OS511",
        "client failed",
        "The client answered with an error in place of a model.",
        FLOWER,
        "a client that ran out of memory or data",
        "read the error in the client's own log",
    ),
    Code(
        "OS512",
        "no reply",
        "A client that was asked did not answer in time.",
        FLOWER,
        "a slow or broken connection",
        "wait longer (timeout of the strategy's start), or ask more clients",
    ),
    Code(
        "OS513",
        "not one record of each kind",
        "A reply must hold one record of arrays and one of metrics. Flower's strategies raise on others.",
        FLOWER,
        "a ClientApp written for another strategy",
        "send one ArrayRecord and one MetricRecord",
    ),
    Code(
        "OS514",
        "bytes that are no tensor",
        "The bytes of an array cannot be read, or are not as many as their own header says.",
        FLOWER,
        "none: Flower writes them so that they can be read",
        _AGAIN,
    ),
    Code(
        "OS515",
        "records or metrics unlike the others'",
        "The records or the metrics of the reply are called otherwise than those of most clients. Flower's strategies "
        "end the whole run on one such reply.",
        FLOWER,
        "a client that runs an older or newer version of the app",
        "bring the client to the version of the app that the others run",
    ),
    Code(
        "OS516",
        "metrics not finite",
        "A metric of the reply is NaN or infinite, which would make that of the whole round so.",
        FLOWER,
        "a client whose training diverged",
        _AGAIN,
    ),
    Code(
        "OS517",
        "masked by secure aggregation",
        "The reply is masked, so that only the sum of all replies could be read. Rules need each client's own update.",
        FLOWER,
        "a client that runs secaggplus_mod where others do not",
        "take secaggplus_mod out of the ClientApp",
    ),
    Code(
        "OS521",
        "update clipped",
        "The update was longer than the bound of the rule and counts as if it were as long as that. It is not refused.",
        "aggregate.guard, aggregate.norm-clip, aggregate.flame, aggregate.flame-updates, aggregate.rlr, "
        "aggregate.deepsight",
        "half of all honest clients, where the bound is the median length",
        "nothing",
    ),
    Code(
        "OS522",
        "far from the median",
        "The update lies far from the geometric median of the round and counts for less than half of its share. It is "
        "not refused.",
        "aggregate.rfa",
        "a client whose data are unlike the others'",
        "look at whether it is the same client in every round",
    ),
    Code(
        "OS523",
        "not the way of trusted samples",
        "The update does not go the way of the server's own update from trusted samples, or against it.",
        "aggregate.fltrust",
        "clients whose data are unlike the trusted samples; any client near convergence",
        "give trusted samples of all that the clients may have",
    ),
    Code(
        "OS524",
        "not among the majority",
        "The direction of the model or update lies outside the one group that more than half of the clients form.",
        "aggregate.flame, aggregate.flame-updates",
        "two of five honest clients where nobody attacks",
        "look at whether it is the same client in every round",
    ),
    Code(
        "OS525",
        "in step with another client",
        "Summed over the rounds, the client's updates go the same way as another client's.",
        "aggregate.foolsgold",
        "clients with like data",
        "compare the two clients",
    ),
    Code(
        "OS526",
        "does not follow from its past",
        "Over a window of rounds the client's updates differ from what its earlier ones foretell by more than the "
        "others' do.",
        "aggregate.fldetector",
        "a client whose data change from round to round",
        "look at whether the client's data or settings changed",
    ),
    Code(
        "OS527",
        "cluster trained towards few labels",
        "The client is in a cluster of like updates, of which many were trained towards few labels.",
        "aggregate.deepsight",
        "clients that have few labels by nature",
        "look at which labels the client has",
    ),
    Code(
        "OS528",
        "every mixture refused",
        "All mixtures of updates that the client's is part of were refused by the rule behind the mixing.",
        "aggregate.nnm, aggregate.bucketing",
        "as of the rule behind it",
        "look at what that rule refuses without mixing",
    ),
    Code(
        "OS529",
        "not selected by Flower's strategy",
        "Krum, Multi-Krum or Bulyan took other clients, whose models lie nearer to one another.",
        "aggregate.flower",
        "clients of rare data, and always some: f and more are left out whether anybody attacks or not",
        "declare fewer attackers, or take a rule that is not told a number",
    ),
    Code(
        "OS540",
        "round missing",
        "The signed statements of a federation do not go from round to round: one is missing or twice there, or there "
        "are not as many as were planned. What was decided in the missing round is not known.",
        "`ostiary federated check`",
        "a server that was stopped while it wrote",
        "ask for the statements of all rounds",
    ),
    Code(
        "OS541",
        "not the model that the round before left",
        "A round says that it began with a model other than the round before left, or the last model is another than "
        "the last round left, or it is of another federation than the first round: weights were changed between "
        "rounds, or rounds of two federations were mixed.",
        "`ostiary federated check`",
        "a server that went on from an older model after it was stopped",
        "do not use the model; ask who changed it",
    ),
)

_OURS = "none: this is a caution about our own measurement"

FEDERATED_CAUTIONS: tuple[Code, ...] = (
    Code(
        "OS926",
        "no reply admitted",
        "Every reply of a round was refused before any rule, or none came. The global model stays as it is.",
        "federated rounds",
        _OURS,
        "read the reasons of the refusals; if all clients run another version of the model, update them",
    ),
    Code(
        "OS927",
        "fewer clients than the rule needs",
        "So few replies were admitted that the rule says nothing. The global model stays as it is.",
        "federated rounds",
        _OURS,
        "ask more clients, or wait longer for them",
    ),
    Code(
        "OS928",
        "rule accepted nobody",
        "The rule refused every client of a round. The global model stays as it is.",
        "every rule that refuses clients",
        _OURS,
        "if it happens often, take another rule: this one does not fit these clients",
    ),
    Code(
        "OS929",
        "next model not finite",
        "What a rule aggregated takes the model out of the range of its numbers. The global model stays as it is.",
        "federated rounds",
        _OURS,
        "look at the lengths of the updates; half precision overflows soon",
    ),
    Code(
        "OS930",
        "not enough rounds to judge",
        "The rule compares rounds and has not seen enough of them. Until then it averages, and refuses nobody.",
        "aggregate.fldetector",
        _OURS,
        "nothing; keep in mind that the first rounds are not guarded",
    ),
    Code(
        "OS938",
        "the filter hands on less than the rule found",
        "In mode filter the strategy gets the accepted replies as they are. The rule's sum was another one: what it "
        "clipped, left out or added is lost.",
        "the guard for Flower",
        _OURS,
        "take mode replace, unless the strategy is to do the aggregation",
    ),
    Code(
        "OS939",
        "the strategy made no model",
        "The wrapped strategy gave back nothing, or other tensors than the model's. The global model stays as it is.",
        "the guard for Flower",
        _OURS,
        "read what the strategy logged: many need a least number of replies",
    ),
)
