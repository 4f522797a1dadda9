"""The server: FedAvg behind a guard."""

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits_app.task import accuracy, fresh, test_set, train, trusted_set
from ostiary.federated.flower import BackdoorGuard

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    epochs, lr = int(context.run_config["local-epochs"]), float(context.run_config["learning-rate"])

    def on_trusted(arrays: ArrayRecord) -> ArrayRecord:
        model = loaded(arrays)
        train(model, trusted_set(), epochs, lr)
        return ArrayRecord(model.state_dict())

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord({"accuracy": accuracy(loaded(arrays), test_set())})

    # The guard needs four clients; with fewer (a try on one machine), the geometric median.
    few = len(list(grid.get_node_ids())) < 4
    strategy = BackdoorGuard(FedAvg(), rule="rfa" if few else "guard", root=on_trusted)
    initial = ArrayRecord(fresh().state_dict())
    result = strategy.start(
        grid=grid,
        initial_arrays=initial,
        num_rounds=int(context.run_config["num-server-rounds"]),
        evaluate_fn=evaluate,
    )
    for done in strategy.rounds:
        print(f"round {done.number}: {len(done.accepted)} of {len(done.reasons)} clients taken")
    torch.save(result.arrays.to_torch_state_dict(), "final.pt")


def loaded(arrays: ArrayRecord) -> torch.nn.Module:
    model = fresh()
    model.load_state_dict(arrays.to_torch_state_dict())
    return model
