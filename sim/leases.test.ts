/** Peers that read the origin in the seed's stead: each piece is asked of it once, and the oracles notice when it is not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Scheduler, type SchedulerEffect } from "../src/scheduler/index.ts";
import type { RunParts } from "./assemble.ts";
import { NO_FAULTS, oneTask, plainOptions, type SimOptions } from "./options.ts";
import { simulate } from "./simulation.ts";

const PIECE_COUNT = 60;

/** The seed cannot read from the start, for longer than the run takes (as drawn from this seed). */
function seedless(changes: Partial<SimOptions["faults"]> = {}): SimOptions {
  return plainOptions(2, {
    peerCount: 12,
    tasks: oneTask(PIECE_COUNT, 1024),
    originBytesPerSecond: 25_000_000,
    faults: { ...NO_FAULTS, seedOutages: 4, ...changes },
  });
}

function spoilt(spoil: (effect: SchedulerEffect) => SchedulerEffect): RunParts {
  return {
    newScheduler: (config, seed) => {
      const scheduler = new Scheduler(config, seed);
      return {
        step: (input, nowMs) => scheduler.step(input, nowMs).map(spoil),
        nextDeadlineMs: () => scheduler.nextDeadlineMs(),
        snapshot: () => scheduler.snapshot(),
      };
    },
  };
}

test("where the seed cannot read peers do, each piece once, and everybody has all of it", () => {
  const report = simulate(seedless());
  assert.equal(report.broughtCount, PIECE_COUNT);
  assert.equal(report.originCopies, 1);
  assert.ok(report.efficiency > 0.5, `efficiency ${report.efficiency}`);
});

test("readers that cannot read, crash, freeze and leave cost a piece each at most", () => {
  for (let seed = 1; seed <= 12; seed++) {
    const report = simulate({ ...seedless({ poorReaders: 3, crashes: 1, freezes: 2, leaves: 1, originCuts: 1 }), seed });
    // What a reader takes away with it is read again.
    assert.ok(report.originCopies < 1.5, `${report.originCopies} copies with seed ${seed}`);
  }
});

test("the oracles notice spans that overlap, and one that is lent twice", () => {
  const early = spoilt((effect) => (effect.type === "grantSpan" ? { ...effect, firstPiece: Math.max(0, effect.firstPiece - 4) } : effect));
  assert.throws(() => simulate(seedless(), early), /asked of the origin 2 times|brought twice under leases/);
  const same = spoilt((effect) => (effect.type === "grantSpan" ? { ...effect, firstPiece: 0, endPiece: 16 } : effect));
  assert.throws(() => simulate(seedless(), same), /asked of the origin 2 times|brought twice under leases/);
});
