from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.messages import DecodeRules, Descriptor, Metadata, ObjectMessage, Reason, Rejection
from stream_cluster.state.partition import Partition, PartitionIdentity


def message(object_id):
    vector = np.array([1, 2, 3], np.float32)
    return ObjectMessage(
        account_id="acme",
        object_type="event",
        action="upsert",
        object_ids=(object_id,),
        metadata=Metadata(source="cam" if object_id == "b" else None),
        descriptors=(Descriptor("face", 1, vector),),
    )


LOG = [
    Rejection(Reason.BAD_FIELD, "", "acme"),
    message("a"),
    Rejection(Reason.ZERO_VECTOR, "", "acme"),
    Rejection(Reason.ZERO_VECTOR, "", "made-up"),
    message("b"),
]


@pytest.mark.parametrize("batch_records", [1, 2, 3, 5])
def test_counters_of_an_account_do_not_depend_on_where_batches_begin(tmp_path, batch_records):
    identity = PartitionIdentity("events", 0, 1, "murmur2")
    partition = Partition(
        tmp_path / "p.sqlite",
        identity,
        DecodeRules(None, 1000, 128),
        lambda dim, _: pytest.fail("nothing is matched"),
        1.0,
    )
    for begin in range(0, len(LOG), batch_records):
        batch = LOG[begin : begin + batch_records]
        partition.commit(partition.prepare_decoded(batch, begin + len(batch)))
    with partition.view() as view:
        assert view.counters("acme") == {("accepted", ""): 2, ("rejected", "zero_vector"): 1}
        assert view.counters("") == {("rejected", "bad_field"): 1, ("rejected", "zero_vector"): 1}
        assert list(view.query("SELECT object_id, source FROM objects ORDER BY key")) == [
            ("a", None),
            ("b", "cam"),
        ]
    partition.close()
