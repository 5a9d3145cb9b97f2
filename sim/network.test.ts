import assert from "node:assert/strict";
import { test } from "node:test";
import { type Connection, Host, Network, Rack } from "./network.ts";
import { World } from "./world.ts";

const MIB = 1024 * 1024;
const options = { delayUs: 500, chunkBytes: 64 * 1024, windowBytes: 256 * 1024, slowStart: false, fairQueueing: false, kernelQueueUs: 0 };

/** Sends 1 MiB and notes when the last byte was read. */
function send(world: World, connection: Connection<string>, ended: (us: number) => void, read?: () => void): void {
  connection.listen(1, {
    message: () => read?.(),
    bytes: (_piece, _bytes, last) => {
      if (last) ended(world.nowUs);
    },
    closed: () => undefined,
  });
  connection.startTransfer(0, 0, MIB, false, { handed: () => undefined });
}

test("a transfer takes its bytes at the slower of both ends, and the delay", () => {
  const world = new World();
  const network = new Network(world, options);
  let endedUs = 0;
  send(world, network.connect(new Host(MIB, MIB), new Host(MIB, MIB / 2)), (us) => (endedUs = us));
  world.run(1e9, () => false);
  assert.ok(Math.abs(endedUs - 2e6) < 0.1e6, `took ${endedUs} µs`);
});

test("a full receiver leaves the sender's uplink to others", () => {
  const world = new World();
  const network = new Network(world, options);
  const sender = new Host(MIB, MIB);
  const ends: number[] = [];
  send(world, network.connect(sender, new Host(MIB, MIB / 10)), (us) => (ends[0] = us));
  send(world, network.connect(sender, new Host(MIB, MIB)), (us) => (ends[1] = us));
  world.run(1e9, () => false);
  assert.ok(Math.abs((ends[0] as number) - 10e6) < 0.5e6, `the slow one took ${ends[0]} µs`);
  assert.ok((ends[1] as number) < 1.5e6, `the fast one took ${ends[1]} µs`);
});

test("two senders share a receiver", () => {
  const world = new World();
  const network = new Network(world, options);
  const receiver = new Host(MIB, MIB);
  const ends: number[] = [];
  for (const i of [0, 1]) send(world, network.connect(new Host(MIB, MIB), receiver), (us) => (ends[i] = us));
  world.run(1e9, () => false);
  for (const us of ends) assert.ok(us > 1.8e6 && us < 2.1e6, `took ${us} µs`);
});

test("a message waits for one chunk, not for the transfer", () => {
  const world = new World();
  const network = new Network(world, options);
  const connection = network.connect<string>(new Host(MIB, MIB), new Host(MIB, MIB * 100));
  let readUs = 0;
  send(world, connection, () => undefined, () => (readUs = world.nowUs));
  world.after(1, () => connection.send(0, "offer", 100));
  world.run(1e9, () => false);
  assert.ok(readUs > 60_000 && readUs < 70_000, `read at ${readUs} µs`);
});

test("with a kernel's queue messages wait behind its payload, as long as it is at most, and keep their order", () => {
  const read = (kernelQueueUs: number): number[] => {
    const world = new World();
    const connection = new Network(world, { ...options, kernelQueueUs }).connect<string>(new Host(MIB, MIB), new Host(MIB, MIB * 100));
    const readUs: number[] = [];
    send(world, connection, () => undefined, () => readUs.push(world.nowUs));
    // At 0.8 s three chunks of the transfer are left, at 0.9 s one.
    for (const us of [1, 0.8e6, 0.9e6]) world.at(us, () => connection.send(0, "offer", 100));
    world.run(1e9, () => false);
    return readUs.map((us) => Math.round(us / 1e4) / 100);
  };
  // Each waits for the chunk on the wire (62.5 ms), too.
  assert.deepEqual(read(0), [0.06, 0.81, 0.94]);
  assert.deepEqual(read(100_000), [0.16, 0.91, 1]);
  assert.deepEqual(read(600_000), [0.66, 1, 1]);
});

test("a frozen process gets what came meanwhile, in order, when it thaws", () => {
  const world = new World();
  const network = new Network(world, options);
  const receiver = new Host(MIB, MIB);
  const connection = network.connect<string>(new Host(MIB, MIB), receiver);
  const read: string[] = [];
  connection.listen(1, {
    message: (message) => read.push(message),
    bytes: () => undefined,
    closed: () => read.push("closed"),
  });
  receiver.frozen = true;
  connection.send(0, "one", 1);
  connection.send(0, "two", 1);
  world.run(1e6, () => false);
  assert.deepEqual(read, []);
  network.thaw(receiver);
  assert.deepEqual(read, ["one", "two"]);
});

test("what crosses racks shares their links to the core, what stays inside does not", () => {
  const world = new World();
  const network = new Network(world, options);
  const racks = [new Rack("a", MIB), new Rack("b", MIB * 10)] as const;
  const [inA, alsoInA, inB] = [new Host(MIB * 10, MIB * 10, racks[0]), new Host(MIB * 10, MIB * 10, racks[0]), new Host(MIB * 10, MIB * 10, racks[1])];
  const ends: number[] = [];
  send(world, network.connect(inA, inB), (us) => (ends[0] = us));
  send(world, network.connect(alsoInA, inB), (us) => (ends[1] = us));
  send(world, network.connect(inA, alsoInA), (us) => (ends[2] = us));
  world.run(1e9, () => false);
  for (const us of ends.slice(0, 2)) assert.ok(us > 1.8e6 && us < 2.3e6, `across took ${us} µs`);
  assert.ok((ends[2] as number) < 0.3e6, `inside took ${ends[2]} µs`);
  assert.equal(racks[1].inBytes, 2 * MIB);
  assert.equal(racks[0].inBytes, 0);
});

test("slow start: a far transfer begins with a small window, and again after an idle while", () => {
  const took = (slowStart: boolean): number[] => {
    const world = new World();
    const network = new Network(world, { ...options, delayUs: 50_000, chunkBytes: 16 * 1024, windowBytes: 4 * MIB, slowStart });
    const connection = network.connect<string>(new Host(MIB * 100, MIB * 100), new Host(MIB * 100, MIB * 100));
    const ends: number[] = [];
    send(world, connection, (us) => ends.push(us));
    world.at(5e6, () => connection.startTransfer(0, 1, MIB, false, { handed: () => undefined }));
    world.run(1e9, () => false);
    return [ends[0] as number, (ends[1] as number) - 5e6];
  };
  for (const us of took(false)) assert.ok(us < 65_000, `without: ${us} µs`);
  // 16, 32, 64, … KiB per round trip of 100 ms: six rounds for 1 MiB.
  for (const us of took(true)) assert.ok(us > 500_000 && us < 800_000, `with: ${us} µs`);
});

test("between islands nothing arrives until they are joined, and then everything does", () => {
  const world = new World();
  const network = new Network(world, options);
  const [a, b] = [new Host(MIB, MIB), new Host(MIB, MIB)];
  const connection = network.connect<string>(a, b);
  let endedUs = 0;
  let readUs = 0;
  send(world, connection, (us) => (endedUs = us), () => (readUs = world.nowUs));
  world.at(0.5e6, () => {
    b.island = 1;
    connection.send(0, "offer", 100);
  });
  world.at(10e6, () => {
    assert.equal(endedUs, 0);
    assert.equal(readUs, 0);
    network.heal([b], () => connection.resume());
  });
  world.run(20e6, () => false);
  assert.ok(endedUs > 10e6 && readUs > 10e6);
  assert.equal(b.receivedPayloadBytes, MIB);
});
