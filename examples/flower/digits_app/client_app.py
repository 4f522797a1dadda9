"""The client: trains on its own digits and sends the model back."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from digits_app.task import accuracy, fresh, shard, train

app = ClientApp()


def own_data(context: Context) -> tuple[Tensor, Tensor]:
    return shard(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))


@app.train()
def train_client(message: Message, context: Context) -> Message:
    model, data = fresh(), own_data(context)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loss = train(model, data, int(context.run_config["local-epochs"]), float(context.run_config["learning-rate"]))
    metrics = MetricRecord({"train-loss": loss, "num-examples": len(data[1])})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate_client(message: Message, context: Context) -> Message:
    model, data = fresh(), own_data(context)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    metrics = MetricRecord({"accuracy": accuracy(model, data), "num-examples": len(data[1])})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
