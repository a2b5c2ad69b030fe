"""Collectives and products read from compiled programs whose bytes are known by hand."""

import json
import math
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from trainers.mesh_costs import hlo

MESH = {"batch": 2, "model": 4}

# Each program gets float32 (or bfloat16) arrays of 64 x 64 split over a mesh of 2 x 4 devices.
_PROGRAMS = """
    import json
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("batch", "model"))

    def compiled(function, spec, out, dtype=jnp.float32):
        mapped = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=out, check_vma=False)
        return jax.jit(mapped).lower(jax.ShapeDtypeStruct((64, 64), dtype)).compile().as_text()

    def scanned(x):
        return lax.scan(lambda c, _: (lax.psum(c @ c, "model"), None), x, None, length=5)[0]

    def endless(x):
        return lax.while_loop(lambda c: c.sum() < 5, lambda c: lax.psum(c @ c, "model"), x)

    def branched(x):
        return lax.cond(x.sum() < 5, lambda c: lax.psum(c, "model"), lambda c: c, x)

    def partitioned():
        # No collective is written here: XLA finds that rows of a product need a sum over `model`.
        def placed(*spec):
            return NamedSharding(mesh, P(*spec))
        left = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=placed("batch", "model"))
        right = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=placed("model", None))
        product = jax.jit(jnp.matmul, out_shardings=placed("batch", None))
        return product.lower(left, right).compile().as_text()

    whole, rows, both = P(), P("model"), P("batch", "model")
    ring = [(0, 1), (1, 2), (2, 3), (3, 0)]
    print(json.dumps({
        "sum over model": compiled(lambda x: lax.psum(x, "model"), both, P("batch")),
        "sum over batch": compiled(lambda x: lax.psum(x, "batch"), both, P(None, "model")),
        "sum over all": compiled(lambda x: lax.psum(x, ("batch", "model")), both, whole),
        "sum in bfloat16": compiled(lambda x: lax.psum(x, "model"), both, P("batch"), jnp.bfloat16),
        "gather": compiled(lambda x: lax.all_gather(x, "model", tiled=True), rows, whole),
        "scatter": compiled(lambda x: lax.psum_scatter(x, "model", tiled=True), whole, rows),
        "exchange": compiled(lambda x: lax.all_to_all(x, "model", 0, 0, tiled=True), rows, rows),
        "pass on": compiled(lambda x: lax.ppermute(x, "model", ring), rows, rows),
        "in a loop": compiled(scanned, whole, whole),
        "in an endless loop": compiled(endless, whole, whole),
        "in a branch": compiled(branched, whole, whole),
        "partitioned": partitioned(),
    }))
"""


@pytest.fixture(scope="module")
def programs():
    """Name to the HLO of a program, compiled for eight virtual devices in a process of its own."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROGRAMS)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: hlo.Program(text) for name, text in json.loads(done.stdout).items()}


SHARD = 32 * 16 * 4  # bytes of a 64 x 64 float32 array split over both dims
ROWS = 16 * 64 * 4  # of one split over `model` alone
WHOLE = 64 * 64 * 4


@pytest.mark.parametrize(
    ("name", "kind", "dims", "sent"),
    [
        ("sum over model", "all-reduce", ("model",), 2 * 3 / 4 * SHARD),
        ("sum over batch", "all-reduce", ("batch",), 2 * 1 / 2 * SHARD),
        ("sum over all", "all-reduce", ("batch", "model"), 2 * 7 / 8 * SHARD),
        # The CPU compiler sums in float32; a bfloat16 has two bytes all the same.
        ("sum in bfloat16", "all-reduce", ("model",), 2 * 3 / 4 * SHARD / 2),
        ("gather", "all-gather", ("model",), 3 * ROWS),
        ("scatter", "reduce-scatter", ("model",), 3 / 4 * WHOLE),
        ("exchange", "all-to-all", ("model",), 3 / 4 * ROWS),
        ("pass on", "collective-permute", ("model",), ROWS),
        ("in a loop", "all-reduce", ("model",), 5 * 2 * 3 / 4 * WHOLE),
        ("in a branch", "all-reduce", ("model",), 2 * 3 / 4 * WHOLE),
        ("partitioned", "all-reduce", ("model",), 2 * 3 / 4 * (32 * 16 * 4)),
    ],
)
def test_bytes_are_those_counted_by_hand(programs, name, kind, dims, sent):
    collectives = programs[name].collectives()

    assert {collective.kind for collective in collectives} == {kind}
    assert {collective.dims(MESH) for collective in collectives} == {dims}
    assert sum(collective.sent for collective in collectives) == sent
    assert programs[name].unknown_loops == 0


def test_collective_says_where_it_comes_from(programs):
    (collective,) = programs["partitioned"].collectives()

    assert collective.source.endswith("dot_general")
    assert collective.times == 1
    assert collective.group == (0, 1, 2, 3)


def test_loop_of_unknown_length_counts_once_and_is_reported(programs):
    program = programs["in an endless loop"]

    assert program.unknown_loops == 1
    assert sum(collective.sent for collective in program.collectives()) == 2 * 3 / 4 * WHOLE


def test_products_are_counted_for_each_trip(programs):
    assert programs["in a loop"].matmul_flops() == 5 * 2 * 64**3
    # A device has 32 of the 64 rows and 8 of the 32 columns that are summed over.
    assert programs["partitioned"].matmul_flops() == 2 * 32 * 16 * 8
    assert programs["sum over model"].matmul_flops() == 0


def _program(operation: str, partitions: int = 8) -> hlo.Program:
    return hlo.Program(
        f"HloModule jit_f, is_scheduled=true, num_partitions={partitions}\n\n"
        "ENTRY %main (p: f32[4]) -> f32[4] {\n"
        "  %p = f32[4]{0} parameter(0)\n"
        f"  ROOT %r = {operation}\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("groups", "first"),
    [
        ("{}", range(8)),
        ("{{0,2},{1,3},{4,6},{5,7}}", (0, 2)),
        ("[2,4]<=[8]", (0, 1, 2, 3)),
        ("[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("[4,2]<=[2,2,2]T(0,2,1)", (0, 2)),
        ("mesh['a'=2,'b'=4] {'b'}", (0, 1, 2, 3)),
        ("mesh['a'=2,'b'=1,'c'=4] {'a'}", (0, 4)),
        ("mesh['a'=2,'b'=2,'c'=2] {'a','c'}", (0, 1, 4, 5)),
        ("mesh['a'=8] {'a':(1)2}", (0, 4)),
        ("mesh['a'=8] {'a':(2)2}", (0, 2)),
        ("mesh['a'=8] {'a':(1)2,'a':(4)2}", (0, 1, 4, 5)),
        ("mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", (0, 2, 4, 6)),
        ("mesh['a'=2,'b'=4], device_ids=(7,6,5,4,3,2,1,0) {'a'}", (7, 3)),
    ],
)
def test_groups_in_every_notation(groups, first):
    program = _program(f"f32[4]{{0}} all-reduce(%p), channel_id=1, replica_groups={groups}, x=1")

    (collective,) = program.collectives()

    assert collective.group == tuple(first)


@pytest.mark.parametrize(
    ("operation", "sent"),
    [
        ("f32[4]{0} all-reduce-start(%p), replica_groups={{0,1}}", 16),
        ("(f32[4], f32[8]) all-gather-start(%p), replica_groups={{0,1}}, dimensions={0}", 16),
        ("f32[4]{0} all-reduce-done(%p)", 0),
        ("f32[4]{0} all-reduce(%p), replica_groups={{0},{1}}", 0),
        ("f32[4]{0} add(%p, %p)", 0),
    ],
)
def test_started_operations_count_once_and_those_of_one_device_not_at_all(operation, sent):
    assert sum(collective.sent for collective in _program(operation).collectives()) == sent


def test_combined_collective_is_taken_apart():
    program = hlo.Program(
        "HloModule jit_f, num_partitions=2\n\n"
        "ENTRY %main (a: f32[4], b: s8[2,3]) -> (f32[4], s8[2,3]) {\n"
        '  %a = f32[4]{0} parameter(0), metadata={op_name="first"}\n'
        '  %b = s8[2,3]{1,0} parameter(1), metadata={op_name="second"}\n'
        "  ROOT %r = (f32[4]{0}, s8[2,3]{1,0}) all-reduce(%a, %b), replica_groups={{0,1}}\n"
        "}\n"
    )

    assert [(part.source, part.sent) for part in program.collectives()] == [
        ("first", 16.0),
        ("second", 6.0),
    ]


def test_dims_are_those_along_which_the_group_differs():
    mesh = {"a": 2, "b": 3, "c": 4}
    devices = np.arange(math.prod(mesh.values())).reshape(2, 3, 4)
    for group, dims in (
        (devices[0, 1, :], ("c",)),
        (devices[:, 2, 3], ("a",)),
        (devices[:, :, 0], ("a", "b")),
        (devices[1, 1, 1:2], ()),
    ):
        group = tuple(group.reshape(-1).tolist())
        assert hlo.Collective("all-reduce", 1.0, group, 1, "").dims(mesh) == dims


def test_unknown_groups_are_refused():
    program = _program("f32[4]{0} all-reduce(%p), replica_groups=of_no_known_form")

    with pytest.raises(ValueError, match="Expected groups"):
        program.collectives()


def test_text_of_something_else_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.Program("nothing")
