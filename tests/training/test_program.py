# SPDX-License-Identifier: Apache-2.0
"""Programs whose traffic can be counted by hand come in; the counts come out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from t5tasks import sharding
from t5tasks.training import program

LOOP = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%cut (whole: f32[5,256], at: s32[]) -> f32[256] {
  %whole = f32[5,256]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,256]{1,0} dynamic-slice(%whole, %at, %zero), dynamic_slice_sizes={1,256}
  ROOT %row = f32[256]{0} bitcast(%slice)
}

%outer (whole.1: f32[5,256], at.1: s32[]) -> f32[256] {
  %whole.1 = f32[5,256]{1,0} parameter(0)
  %at.1 = s32[] parameter(1)
  ROOT %row.1 = f32[256]{0} fusion(%whole.1, %at.1), kind=kLoop, calls=%cut
}

%body (carry: (s32[], f32[256], f32[5,256])) -> (s32[], f32[256], f32[5,256]) {
  %carry = (s32[], f32[256]{0}, f32[5,256]{1,0}) parameter(0)
  %number = s32[] get-tuple-element(%carry), index=0
  %table = f32[5,256]{1,0} get-tuple-element(%carry), index=2
  %row = f32[256]{0} fusion(%table, %number), kind=kLoop, calls=%outer
  %all = f32[256]{0} all-reduce(%row), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %out = (s32[], f32[256]{0}, f32[5,256]{1,0}) tuple(%number, %all, %table)
}

%condition (carry.1: (s32[], f32[256], f32[5,256])) -> pred[] {
  %carry.1 = (s32[], f32[256]{0}, f32[5,256]{1,0}) parameter(0)
  %number.1 = s32[] get-tuple-element(%carry.1), index=0
  %five = s32[] constant(5)
  ROOT %less = pred[] compare(%number.1, %five), direction=LT
}

ENTRY %main (table.1: f32[5,256]) -> f32[2048] {
  %table.1 = f32[5,256]{1,0} parameter(0)
  %start = (s32[], f32[256]{0}, f32[5,256]{1,0}) custom-call(), custom_call_target="begin"
  %loop = (s32[], f32[256]{0}, f32[5,256]{1,0}) while(%start), condition=%condition, body=%body
  %mine = f32[256]{0} get-tuple-element(%loop), index=1
  %near = f32[256]{0:T(256)S(1)} copy(%mine)
  ROOT %gathered = f32[2048]{0} all-gather(%near), replica_groups=mesh['x'=4,'y'=2] {'x','y'}, dimensions={0}
}
"""


def test_what_a_loop_holds_counts_as_often_as_it_runs() -> None:
    found = program.traffic(LOOP, 8)
    reduced, gathered = found.collectives["all-reduce"], found.collectives["all-gather"]
    assert reduced == (5, 5 * 1024, 5 * 1024 * 2 * 3 / 4)
    assert gathered == (1, 8192, 8192 * 7 / 8)
    assert found.sent == reduced[2] + gathered[2]


def test_memory_is_what_lies_far_and_of_a_table_the_row_that_is_read() -> None:
    found = program.traffic(LOOP, 8)
    row = 1024
    begin = 4 + row + 5 * row
    in_a_turn = (row + 4) + row + 2 * row  # a row and its number in, a row out; the sum's both
    asked = 4 + 4 + 1  # a number, its limit, and whether it is less
    # What is copied near is read, and what is gathered lands.
    assert found.memory == begin + 5 * in_a_turn + asked + row + 8 * row


@pytest.mark.parametrize("times", [1, 7])
def test_a_real_program_is_read(times: int) -> None:
    """A loop of sums over eight devices, as XLA compiles it here."""
    mesh = sharding.make_mesh()
    rows = jax.ShapeDtypeStruct((64, 128), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))

    def loop(x: jax.Array) -> jax.Array:
        def turn(carry: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jnp.tanh(jnp.sum(x * carry, axis=0)), None
        return jax.lax.scan(turn, jnp.ones(128), None, length=times)[0]

    text = jax.jit(loop).lower(rows).compile().as_text()
    assert text is not None
    count, size, sent = program.traffic(text, 8).collectives["all-reduce"]
    assert (count, size) == (times, times * 512) and sent == pytest.approx(times * 512 * 2 * 7 / 8)
