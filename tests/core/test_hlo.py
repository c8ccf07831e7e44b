"""Programs as compilers write them, read line by line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sface_jax.core import hlo

HEADING = "HloModule jit_f, is_scheduled=true, num_partitions=16\n\n"


def program(*lines: str, before: str = "") -> str:
    """A program of some lines."""
    body = "\n".join(f"  {line}" for line in lines)
    return f"{HEADING}{before}ENTRY %main.1 (p: f32[512]) -> f32[512] {{\n{body}\n}}\n"


def sent(line: str) -> tuple[str, int, float]:
    """Kind, group and bytes of the collective in a line."""
    ((one, times),) = hlo.read(program("%p = f32[512]{0} parameter(0)", line)).collectives
    assert times == 1
    return one.kind, one.group, one.wire


@pytest.mark.parametrize(
    ("line", "kind", "group", "wire"),
    [
        ("%a = f32[512]{0} all-reduce(%p), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}", "all-reduce", 4, 3072),
        ("%a = bf16[512]{0} all-reduce(%p), replica_groups=[2,8]<=[16]", "all-reduce", 8, 1792),
        ("%a = f32[512]{0} all-reduce(%p), replica_groups=[4,4]<=[4,4]T(1,0), to_apply=%add", "all-reduce", 4, 3072),
        ("%a = f32[512]{0} all-reduce(%p), replica_groups=mesh['x'=4,'y'=4] {'x'}, to_apply=%s", "all-reduce", 4, 3072),
        ("%a = f32[512]{0} all-reduce(%p), replica_groups=mesh['x'=16] {'x':(1)4}", "all-reduce", 4, 3072),
        ("%a = f32[512]{0} all-reduce(%p), replica_groups={}", "all-reduce", 16, 3840),
        (
            "%a = (f32[512]{0:T(512)S(1)}, /*index=1*/f32[2,8]{1,0}) all-reduce(%p, %q), replica_groups=[1,16]<=[16]",
            "all-reduce",
            16,
            2 * 15 / 16 * (2048 + 64),
        ),
        (
            "%a = (f32[32]{0}, f32[512]{0}) all-gather-start(%p), replica_groups=[1,16]<=[16], dimensions={0}",
            "all-gather",
            16,
            1920,
        ),
        (
            "%a = ((f32[32]{0}, s8[2]{0}), (f32[512]{0}, s8[32]{0})) all-gather-start(%p, %q), replica_groups={}",
            "all-gather",
            16,
            1950,
        ),
        ("%a = f32[32]{0} reduce-scatter(%p), replica_groups={}, dimensions={0}", "reduce-scatter", 16, 1920),
        ("%a = f32[16,32]{1,0} all-to-all(%p), replica_groups={}, dimensions={0}", "all-to-all", 16, 1920),
        (
            "%a = (f32[512]{0}, f32[512]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%p), channel_id=7, "
            "source_target_pairs={{0,1},{1,0}}",
            "collective-permute",
            16,
            2048,
        ),
    ],
)
def test_a_collective_sends_what_a_ring_of_its_group_does(line, kind, group, wire):
    assert sent(line) == (kind, group, wire)


def test_the_end_of_what_was_begun_counts_no_more():
    text = program(
        "%p = f32[512]{0} parameter(0)",
        "%s = f32[512]{0} all-reduce-start(%p), replica_groups={}",
        "ROOT %d = f32[512]{0} all-reduce-done(%s)",
    )
    assert len(hlo.read(text).collectives) == 1


def test_collectives_in_calls_and_in_fusions_of_a_tpu_are_found():
    before = (
        "%all-reduce-scatter.1 (q: f32[512]) -> f32[32] {\n  %q = f32[512]{0} parameter(0)\n"
        "  %all = f32[512]{0} all-reduce(%q), channel_id=3, replica_groups=[1,16]<=[16]\n"
        "  ROOT %cut = f32[32]{0} dynamic-slice(%all, %i), dynamic_slice_sizes={32}\n}\n\n"
        "%async (r: f32[512]) -> f32[512] {\n  %r = f32[512]{0} parameter(0)\n"
        "  ROOT %t = f32[512]{0} all-to-all(%r), replica_groups={}, dimensions={0}\n}\n\n"
    )
    text = program(
        "%p = f32[512]{0} parameter(0)",
        "%f = f32[32]{0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1",
        "%b = ((f32[512]{0}), f32[512]{0}, u32[]) async-start(%p), calls=%async",
        "ROOT %e = f32[512]{0} async-done(%b)",
        before=before,
    )
    found = {one.kind: one.wire for one, _ in hlo.read(text).collectives}
    assert found == {"reduce-scatter": 1920, "all-to-all": 1920}


def loop(first: int, last: int, step: int, told: str = "") -> str:
    """A loop with a product and a collective in it, as a TPU's compiler writes it, and in it another of three turns."""

    def one(name: str, bound: int, by: int, inner: str) -> str:
        return (
            f"%cond{name} (c: (s32[], f32[8,8])) -> pred[] {{\n  %c = (s32[], f32[8,8]) parameter(0)\n"
            f"  %n = s32[]{{:T(128)}} constant({bound})\n  %i = s32[] get-tuple-element(%c), index=0\n"
            f"  ROOT %lt = pred[]{{:T(512)}} compare(%i, %n), direction=LT\n}}\n\n"
            f"%body{name} (b: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {{\n  %b = (s32[], f32[8,8]) parameter(0)\n"
            f"  %i = s32[] get-tuple-element(%b), index=0\n  %x = f32[8,8]{{1,0}} get-tuple-element(%b), index=1\n"
            f"  %k = s32[] constant({by})\n  %j = s32[] add(%i, %k)\n  %z = s32[] constant(0)\n{inner}"
            f"  ROOT %o = (s32[], f32[8,8]) tuple(%j, %x)\n}}\n\n"
        )

    product = (
        "  %y = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}, "
        'operand_precision={highest,highest}, backend_config={"estimated_cycles":"7"}\n'
        "  %a = f32[8,8]{1,0} all-reduce(%y), replica_groups={}\n"
    )
    nested = (
        "  %zero = s32[] copy(%z)\n  %w = (s32[], f32[8,8]) tuple(%zero, %x)\n"
        "  %inner = (s32[], f32[8,8]) while(%w), condition=%condi, body=%bodyi\n"
    )
    return program(
        "%p = f32[8,8]{1,0} parameter(0)",
        f"%s = s32[] constant({first})",
        "%t = (s32[], f32[8,8]) tuple(%s, %p)",
        f"ROOT %l = (s32[], f32[8,8]) while(%t), condition=%condo, body=%bodyo{told}",
        before=one("i", 3, 1, product) + one("o", last, step, nested),
    )


@given(first=st.integers(0, 3), turns=st.integers(0, 50))
def test_loops_count_as_often_as_they_run(first, turns):
    work = hlo.read(loop(first, first + turns, 1))
    assert work.unknown == 0
    assert work.products == 3 * turns * 2 * 8**3
    assert (work.passes, work.cycles) == (6 * work.products, 3 * turns * 7)
    assert [times for _, times in work.collectives] == [3 * turns]


def test_what_the_compiler_knows_of_a_loop_comes_first_and_a_stranger_loop_is_told():
    told = ', backend_config={"known_trip_count":{"n":"11"}}'
    assert hlo.read(loop(0, 5, 1, told)).products == 11 * 3 * 2 * 8**3
    strange = hlo.read(loop(0, 5, 2))
    assert (strange.unknown, strange.products) == (1, 3 * 2 * 8**3)
    assert hlo.read(loop(0, 5, 1), as_xla=True).products == 2 * 8**3


def test_of_branches_the_cheapest_that_multiplies_counts():
    branches = "".join(
        f"%{name} (x: f32[8,8]) -> f32[8,8] {{\n  %x = f32[8,8]{{1,0}} parameter(0)\n{lines}}}\n\n"
        for name, lines in {
            "skip": "  ROOT %y = f32[8,8]{1,0} copy(%x)\n",
            "plain": "  ROOT %y = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}\n",
            "mixed": "  %z = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}\n"
            "  ROOT %y = f32[8,8]{1,0} dot(%z, %x), lhs_contracting_dims={1}\n",
        }.items()
    )
    text = program(
        "%p = f32[8,8]{1,0} parameter(0)",
        "%i = s32[] constant(0)",
        "ROOT %c = f32[8,8]{1,0} conditional(%i, %p, %p, %p), branch_computations={%skip, %plain, %mixed}",
        before=branches,
    )
    assert hlo.read(text).products == 2 * 8**3
    assert hlo.read(text, as_xla=True).products == 2 * 2 * 8**3


def test_traffic_is_what_passes_between_memory_and_processor():
    before = (
        "%cut (a: f32[64,8], i: s32[]) -> f32[1,8] {\n  %a = f32[64,8]{1,0} parameter(0)\n  %i = s32[] parameter(1)\n"
        "  ROOT %s = f32[1,8]{1,0} dynamic-slice(%a, %i, %i), dynamic_slice_sizes={1,8}\n}\n\n"
        "%put (a: f32[64,8], b: f32[1,8]) -> f32[64,8] {\n  %a = f32[64,8]{1,0} parameter(0)\n"
        "  %b = f32[1,8]{1,0} parameter(1)\n  %z = s32[] constant(0)\n"
        "  ROOT %u = f32[64,8]{1,0} dynamic-update-slice(%a, %b, %z, %z)\n}\n\n"
    )
    p, small = "%p = f32[64,8]{1,0} parameter(0)", 4 * 8

    def traffic(*lines: str) -> float:
        return hlo.read(program(p, *lines, before=before)).traffic

    assert traffic("%a = f32[64,8]{1,0} negate(%p)") == 2 * 2048
    assert traffic("%a = f32[64,8]{1,0:T(8,128)S(1)} negate(%p)") == 2048  # its result stays near
    assert traffic("%s = s32[]{:S(2)} parameter(1)", "%a = f32[1,8]{1,0} fusion(%p, %s), calls=%cut") == 2 * small
    assert traffic("%b = f32[1,8]{1,0:S(1)} parameter(1)", "%a = f32[64,8]{1,0} fusion(%p, %b), calls=%put") == small
    begun = "%a = ((f32[64,8]{1,0}), f32[1,8]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:1], [0:8]}"
    assert traffic(begun, "%d = f32[1,8]{1,0:S(1)} slice-done(%a)") == small


def test_integers_are_multiplied_apart():
    text = program(
        "%p = s8[8,16]{1,0} parameter(0)",
        "%q = s8[16,4]{1,0} parameter(1)",
        "%c = s32[8,4]{1,0} convolution(%p, %q), dim_labels=bf_io->bf",
    )
    work = hlo.read(text)
    assert (work.products, work.integers, work.passes) == (2 * 8 * 4 * 16, 2 * 8 * 4 * 16, 0)
