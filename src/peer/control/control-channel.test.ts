import assert from "node:assert/strict";
import { duplexPair } from "node:stream";
import { test } from "node:test";
import fc from "fast-check";
import { z } from "zod";
import type { AppError } from "../../base/errors.ts";
import { ControlChannel, type ControlChannelOptions, parseMessage } from "./control-channel.ts";

interface End {
  readonly channel: ControlChannel;
  readonly frames: unknown[];
  readonly ended: Promise<AppError | undefined>;
}

function open(socket: ConstructorParameters<typeof ControlChannel>[0], options: Partial<ControlChannelOptions> = {}): End {
  const frames: unknown[] = [];
  let onEnd: (error: AppError | undefined) => void = () => {};
  const ended = new Promise<AppError | undefined>((resolve) => (onEnd = resolve));
  const channel = new ControlChannel(socket, Buffer.alloc(0), { onFrame: (value) => frames.push(value), onEnd, ...options });
  return { channel, frames, ended };
}

function frame(text: string): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt32BE(Buffer.byteLength(text));
  return Buffer.concat([header, Buffer.from(text)]);
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("messages arrive in order, whatever the chunks", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.jsonValue(), { maxLength: 8 }), fc.array(fc.nat(40), { maxLength: 20 }), async (values, cuts) => {
      const [left, right] = duplexPair();
      const end = open(right);
      const bytes = Buffer.concat([Buffer.alloc(4), ...values.map((value) => frame(JSON.stringify(value)))]);
      let at = 0;
      for (const cut of cuts) {
        left.write(bytes.subarray(at, at + cut));
        at = Math.min(at + cut, bytes.length);
      }
      left.end(bytes.subarray(at));
      assert.equal(await end.ended, undefined);
      assert.deepEqual(end.frames, values.map((value) => JSON.parse(JSON.stringify(value)) as unknown));
    }),
    { numRuns: 100 },
  );
});

test("garbage ends the connection and never throws", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (bytes) => {
      const [left, right] = duplexPair();
      const end = open(right);
      left.end(bytes);
      const error = await end.ended;
      assert.ok(error === undefined || ["PROTOCOL_VIOLATION", "MESSAGE_TOO_LARGE"].includes(error.code));
    }),
    { numRuns: 300 },
  );
});

test("a frame longer than allowed is refused by its header alone", async () => {
  const [left, right] = duplexPair();
  const end = open(right, { frameLengthBytesMax: 100 });
  left.write(Buffer.from([0, 0, 0, 101]));
  assert.equal((await end.ended)?.code, "MESSAGE_TOO_LARGE");
});

test("what the owner throws ends the connection", async () => {
  const [left, right] = duplexPair();
  const end = open(right, { onFrame: (value) => parseMessage(z.object({ type: z.literal("x") }), value) });
  left.write(frame('{"type":"y"}'));
  const error = await end.ended;
  assert.equal(error?.code, "PROTOCOL_VIOLATION");
  assert.match(error.message, /type/);
});

test("a frame that trickles in, and silence, end the connection; heartbeats keep it", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval"] });
  let nowMs = 0;
  const options = { nowMs: () => nowMs, heartbeatMs: 5_000, silenceMs: 15_000 };
  const [left, right] = duplexPair();
  const [silent, other] = duplexPair();
  const trickle = open(right, options);
  const silence = open(other, options);
  const [a, b] = duplexPair();
  const lively = [open(a, options), open(b, options)] as const;
  silent.resume();
  left.resume();
  left.write(Buffer.from([0, 0, 0, 50]));
  await turn();
  for (let round = 0; round < 3; round++) {
    left.write("[");
    nowMs += 5_000;
    t.mock.timers.tick(5_000);
    // oxlint-disable-next-line no-await-in-loop -- one heartbeat after the other
    await turn();
  }
  assert.equal((await trickle.ended)?.code, "TIMEOUT");
  assert.equal((await silence.ended)?.code, "TIMEOUT");
  assert.equal(lively[0].channel.ended || lively[1].channel.ended, false);
  for (const end of lively) end.channel.close();
});

test("an other side that does not read is let go", async () => {
  const [, right] = duplexPair();
  const end = open(right, { queueBytesMax: 1000 });
  for (let i = 0; i < 5 && !end.channel.ended; i++) end.channel.send("x".repeat(1000));
  assert.ok(end.channel.ended);
  assert.match((await end.ended)?.message ?? "", /left \d+ bytes unread/);
});

test("a message too long to be understood is not sent", () => {
  const [, right] = duplexPair();
  const end = open(right);
  assert.throws(() => end.channel.send("x".repeat(5 * 1024 * 1024)), { code: "MESSAGE_TOO_LARGE" });
  assert.equal(end.channel.ended, false);
  end.channel.close();
});

test("a connection that is closed here says nothing more, and is let go of also when the other end stays open", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval", "setTimeout"] });
  const [left, right] = duplexPair({ allowHalfOpen: true });
  const end = open(right);
  const heard: Buffer[] = [];
  left.on("data", (chunk: Buffer) => heard.push(chunk));
  end.channel.send("last");
  end.channel.close();
  assert.equal(await end.ended, undefined);
  t.mock.timers.tick(999);
  await turn();
  assert.equal(right.destroyed, false, "what was queued is still on its way");
  const written = t.mock.method(right, "write");
  t.mock.timers.tick(60_000);
  await turn();
  assert.equal(right.destroyed, true);
  assert.equal(written.mock.callCount(), 0);
  assert.deepEqual(Buffer.concat(heard), frame('"last"'));
});

test("a socket that is gone without a word ends the connection", async () => {
  const [, right] = duplexPair();
  const end = open(right);
  right.destroy();
  await turn();
  assert.ok(end.channel.ended);
});
