import assert from "node:assert/strict";
import { test } from "node:test";
import { Host, Rack } from "./host.ts";
import { type Connection, Network } from "./network.ts";
import { World } from "./world.ts";

const MIB = 1024 * 1024;
const options = { delayUs: 500, chunkBytes: 64 * 1024, windowBytes: 256 * 1024, slowStart: false, fairQueueing: false, socketBytes: 0 };

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

test("a socket takes what it has room for at once; messages wait for what is in it, and for their host's queue", () => {
  const world = new World();
  const network = new Network(world, { ...options, socketBytes: MIB / 2 });
  const sender = new Host(MIB, MIB);
  const connection = network.connect<string>(sender, new Host(MIB, MIB * 100));
  const readUs: number[] = [];
  const handedUs: number[] = [];
  connection.listen(1, { message: () => readUs.push(world.nowUs), bytes: () => undefined, closed: () => undefined });
  connection.startTransfer(0, 0, MIB, false, { handed: () => handedUs.push(world.nowUs) });
  assert.equal(handedUs.length, 8, "of 16 chunks");
  assert.equal(connection.kernelQueue(0)?.heldBytes, MIB / 2);
  connection.send(0, "behind half a MiB", 100);
  const other = network.connect<string>(sender, new Host(MIB, MIB * 100));
  other.listen(1, { message: () => readUs.push(world.nowUs), bytes: () => undefined, closed: () => undefined });
  other.send(0, "behind 50 ms of the host's queue", 100);
  world.run(1e9, () => false);
  assert.deepEqual(readUs.map((us) => Math.round(us / 1e4) / 100), [0.13, 0.5]);
  // The last chunk goes in when half a MiB is left.
  assert.ok(Math.abs((handedUs.at(-1) as number) - 0.5e6) < 0.1e6, `handed over after ${handedUs.at(-1)} µs`);
  const { heldBytes, roundTripMs, leastRoundTripMs } = connection.kernelQueue(0) ?? assert.fail("it is open");
  assert.equal(heldBytes, 0);
  // One chunk was on the wire and one before it in the queue, at most 62.5 ms each; its own time on the wire is not the way's.
  assert.ok(leastRoundTripMs === 1 && roundTripMs > 50 && roundTripMs < 125, `${leastRoundTripMs} ms, then ${roundTripMs}`);
});

test("what a socket has taken goes out though its process is frozen, and the rest when it thaws", () => {
  const world = new World();
  const network = new Network(world, { ...options, socketBytes: MIB / 2 });
  const [sender, receiver] = [new Host(MIB, MIB), new Host(MIB, MIB)];
  const connection = network.connect<string>(sender, receiver);
  let endedUs = 0;
  send(world, connection, (us) => (endedUs = us));
  sender.frozen = true;
  world.at(5e6, () => {
    assert.equal(receiver.receivedPayloadBytes, MIB / 2);
    network.thaw(sender);
  });
  world.run(1e9, () => false);
  assert.equal(receiver.receivedPayloadBytes, MIB);
  assert.ok(endedUs > 5.5e6 && endedUs < 5.7e6, `took ${endedUs} µs`);
});

test("a long way is no queue: TCP's round trip is as long as the way is, messages' included", () => {
  const world = new World();
  const network = new Network(world, { ...options, delayUs: 40_000, slowStart: true, socketBytes: MIB / 2 });
  const connection = network.connect<string>(new Host(MIB * 1_000, MIB * 1_000), new Host(MIB * 1_000, MIB * 1_000));
  send(world, connection, () => undefined);
  for (const us of [0, 1e6, 2e6]) world.at(us, () => connection.send(0, "offer", 100));
  world.run(1e9, () => false);
  const { roundTripMs, leastRoundTripMs } = connection.kernelQueue(0) ?? assert.fail("it is open");
  assert.ok(leastRoundTripMs >= 80 && roundTripMs < 81, `${roundTripMs} ms, at least ${leastRoundTripMs}`);
});

test("a chunk's own time on the wires is no queue", () => {
  const world = new World();
  const network = new Network(world, { ...options, chunkBytes: MIB / 8, windowBytes: MIB / 8, socketBytes: MIB / 2 });
  const connection = network.connect<string>(new Host(MIB * 6, MIB * 6), new Host(MIB * 6, MIB * 6));
  send(world, connection, () => undefined);
  world.run(1e9, () => false);
  const { roundTripMs, leastRoundTripMs } = connection.kernelQueue(0) ?? assert.fail("it is open");
  assert.ok(roundTripMs - leastRoundTripMs < 1, `${roundTripMs} ms, at least ${leastRoundTripMs}`);
});

test("while its receiver's process is frozen, what waits there is not taken for a queue on the way", () => {
  const world = new World();
  const network = new Network(world, { ...options, socketBytes: MIB / 2 });
  const [sender, receiver] = [new Host(MIB * 10, MIB * 10), new Host(MIB * 10, MIB * 10)];
  const connection = network.connect<string>(sender, receiver);
  let endedUs = 0;
  send(world, connection, (us) => (endedUs = us));
  receiver.frozen = true;
  world.at(3e6, () => network.thaw(receiver));
  world.run(1e9, () => false);
  assert.ok(endedUs > 3e6);
  const { roundTripMs } = connection.kernelQueue(0) ?? assert.fail("it is open");
  assert.ok(roundTripMs < 60, `${roundTripMs} ms`);
});

test("what is said after payload is heard after it, on whatever way", () => {
  for (const socketBytes of [0, MIB]) {
    for (const fairQueueing of [false, true]) {
      for (const racks of [[undefined, undefined], [undefined, new Rack("b", MIB)], [new Rack("a", MIB), new Rack("b", MIB)]] as const) {
        const world = new World();
        const network = new Network(world, { ...options, socketBytes, fairQueueing });
        const connection = network.connect<string>(new Host(MIB, MIB, racks[0]), new Host(MIB, MIB, racks[1]));
        const heard: string[] = [];
        connection.listen(1, { message: (message) => heard.push(message), bytes: () => heard.push("bytes"), closed: () => undefined });
        connection.startTransfer(0, 0, 64 * 1024, false, { handed: () => undefined });
        connection.send(0, "after", 10);
        world.run(1e9, () => false);
        assert.deepEqual(heard, ["bytes", "after"]);
      }
    }
  }
});

test("with sockets' buffers what was closed lets others go on, and what was cut goes on when it is whole", () => {
  const world = new World();
  const network = new Network(world, { ...options, socketBytes: MIB / 4 });
  const [sender, first, second] = [new Host(MIB, MIB), new Host(MIB, MIB), new Host(MIB, MIB)];
  const closing = network.connect<string>(sender, first);
  const cut = network.connect<string>(sender, second);
  let endedUs = 0;
  send(world, closing, () => assert.fail("it was closed"));
  send(world, cut, (us) => (endedUs = us));
  world.at(0.2e6, () => closing.close([0, 0]));
  world.at(0.4e6, () => (second.island = 1));
  world.at(5e6, () => network.heal([second], () => cut.resume()));
  world.run(1e9, () => false);
  assert.equal(closing.kernelQueue(0), undefined);
  assert.equal(second.receivedPayloadBytes, MIB);
  assert.ok(endedUs > 5e6 && endedUs < 7e6, `took ${endedUs} µs`);
  assert.ok((cut.kernelQueue(0)?.roundTripMs ?? 0) < 400, "what was sent again says nothing of the way");
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
