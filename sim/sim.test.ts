import assert from "node:assert/strict";
import { test } from "node:test";
import { Scheduler, type SchedulerInput } from "../src/scheduler/index.ts";
import { DEFAULT_SWARM_CONFIG, Swarm, type SwarmInput } from "../src/swarm/index.ts";
import { drawnOptions, plainOptions, type SimOptions } from "./options.ts";
import { copyOf } from "./peer-model.ts";
import { simulate } from "./simulation.ts";

// Floors lie a few points below what was measured when they were set: they catch a loss, they are not the goal.
const PLAIN: readonly (Partial<SimOptions> & { readonly seed: number; readonly floor: number })[] = [
  { seed: 1, peerCount: 16, floor: 0.74 },
  { seed: 2, peerCount: 16, seedFactor: 4, floor: 0.74 },
  // One transfer at a time and answers that pass the bulk data: the policy alone, as in the fluid model (92.6 %).
  { seed: 1, peerCount: 16, fairQueueing: true, swarm: { ...DEFAULT_SWARM_CONFIG, uploadCount: 1, downloadCountMax: 3 }, floor: 0.9 },
  { seed: 1, peerCount: 100, pieceCount: 128, floor: 0.64 },
  { seed: 2, peerCount: 100, pieceCount: 128, seedFactor: 2, floor: 0.64 },
];

for (const { seed, floor, ...changes } of PLAIN) {
  const options = plainOptions(seed, changes);
  const traits = `seed ${options.seedFactor}× as fast${options.fairQueueing ? ", fair queues, one upload at a time" : ""}`;
  test(`${options.peerCount} equal peers, ${traits}: efficiency at least ${floor}`, (t) => {
    const report = simulate(options);
    t.diagnostic(`efficiency ${(report.efficiency * 100).toFixed(1)} %, seed sent ${report.seedCopies.toFixed(2)} copies`);
    assert.ok(report.efficiency >= floor, `efficiency ${report.efficiency}`);
    assert.ok(report.efficiency <= 1, "nobody beats the bound");
    assert.ok(report.seedCopies < 1.35 * options.seedFactor, `the seed sent ${report.seedCopies} copies`);
    assert.ok(report.wastedShare < 0.01, `${report.wastedShare} of the payload was for nothing`);
    assert.equal(report.storedTwice, 0);
    assert.ok(report.controlMessagesPerPeer <= 10, `${report.controlMessagesPerPeer} control messages per peer`);
  });
}

test("whatever crashes, freezes, resets and restarts, everybody alive finishes", (t) => {
  let faults = 0;
  for (let seed = 1; seed <= 14; seed++) {
    const options = drawnOptions(seed, true);
    faults += options.crashCount + options.freezeCount + options.resetCount + options.restartCount;
    try {
      simulate(options);
    } catch (error) {
      throw new Error(`node sim/main.ts --seeds ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
  t.diagnostic(`${faults} faults`);
  assert.ok(faults > 50);
});

test("the input logs of a peer and of the supernode, replayed, give the same effects byte for byte", () => {
  for (const seed of [5, 21, 33]) {
    const options = drawnOptions(seed, true);
    const watched = `peer-${seed % options.peerCount}`;
    const swarmLog: { input: SwarmInput; nowMs: number; effects: string }[] = [];
    const schedulerLog: { input: SchedulerInput; nowMs: number; effects: string }[] = [];
    let schedulerSeed = 0;
    let swarmSeed = 0;
    // A restart begins another log.
    simulate({ ...options, restartCount: 0 }, {
      swarm: (peer, input, nowMs, effects) => {
        if (peer.peerId !== watched) return;
        swarmSeed = peer.swarmSeed;
        swarmLog.push({ input, nowMs, effects: JSON.stringify(effects) });
      },
      scheduler: (seedOfThisLife, input, nowMs, effects) => {
        schedulerSeed = seedOfThisLife;
        schedulerLog.push({ input, nowMs, effects: JSON.stringify(effects) });
      },
    });
    assert.ok(swarmLog.length > 0, "the watched peer did something");
    for (let round = 0; round < 2; round++) {
      const swarm = new Swarm(options.swarm, swarmSeed);
      for (const { input, nowMs, effects } of swarmLog) {
        assert.equal(JSON.stringify(swarm.step(copyOf(input), nowMs)), effects, `seed ${seed}, ${watched} at ${nowMs} ms`);
      }
    }
    const scheduler = new Scheduler(options.scheduler, schedulerSeed);
    for (const { input, nowMs, effects } of schedulerLog) {
      assert.equal(JSON.stringify(scheduler.step(input, nowMs)), effects, `seed ${seed}, scheduler at ${nowMs} ms`);
    }
  }
});
