import assert from "node:assert/strict";
import { test } from "node:test";
import { SignatureVerifier, SigningKey } from "../../peer/membership/credentials.ts";
import { signedOf } from "../../peer/membership/piece-signature.ts";
import type { TaskId } from "../../protocol/ids.ts";
import { pieceStatement } from "../../protocol/link-frames.ts";
import { SigningDesk } from "./signing-desk.ts";

const taskId = "a".repeat(64) as TaskId;
const digest = new Uint8Array(32);
const KIB = 1024;

/** A desk under virtual time that counts what is signed. */
class Clocked {
  readonly key = SigningKey.generate();
  readonly desk: SigningDesk;
  readonly done = new Map<number, Uint8Array>();
  signCount = 0;
  #nowMs = 0;
  #timer: { readonly atMs: number; readonly run: () => void } | undefined;

  constructor(pieceLengthBytes: number) {
    const sign = (statement: Uint8Array): Uint8Array => {
      this.signCount++;
      return this.key.sign(statement);
    };
    const after = (delayMs: number, run: () => void): (() => void) => {
      assert.equal(this.#timer, undefined, "one timer at a time");
      this.#timer = { atMs: this.#nowMs + delayMs, run };
      return () => (this.#timer = undefined);
    };
    this.desk = new SigningDesk({ sign, nowMs: () => this.#nowMs, after }, taskId, pieceLengthBytes);
  }

  ask(...pieces: readonly number[]): void {
    for (const piece of pieces) {
      this.desk.sign(piece, KIB, digest).then(
        (signature) => this.done.set(piece, signature),
        () => assert.fail("no signature"),
      );
    }
  }

  async at(nowMs: number): Promise<readonly number[]> {
    this.#nowMs = nowMs;
    const timer = this.#timer;
    if (timer !== undefined && nowMs >= timer.atMs) {
      this.#timer = undefined;
      timer.run();
    }
    await new Promise(setImmediate);
    return [...this.done.keys()];
  }
}

test("the first pieces are signed at once, later ones wait for others for a sixteenth of the time that has passed, a tenth of a second at most", async () => {
  const desk = new Clocked(KIB);
  desk.ask(0);
  assert.deepEqual(await desk.at(0), [0]);
  await desk.at(160);
  desk.ask(1);
  assert.deepEqual(await desk.at(165), [0]);
  desk.ask(2, 3);
  assert.deepEqual(await desk.at(169), [0]);
  assert.deepEqual(await desk.at(170), [0, 1, 2, 3]);
  await desk.at(60_000);
  desk.ask(4);
  assert.deepEqual(await desk.at(60_099), [0, 1, 2, 3]);
  assert.deepEqual(await desk.at(60_100), [0, 1, 2, 3, 4]);
  assert.equal(desk.signCount, 3);
  const verifier = new SignatureVerifier(desk.key.publicKey);
  for (const [piece, signature] of desk.done) {
    const signed = signedOf(pieceStatement(taskId, piece, KIB, digest), signature);
    assert.ok(signed !== undefined && verifier.verify(signed.statement, signed.signature), `piece ${piece}`);
  }
});

test("no more wait than sixteen, or 4 MiB; of pieces as long as that none", async () => {
  const short = new Clocked(128 * KIB);
  await short.at(10_000);
  short.ask(...Array.from({ length: 20 }, (_, piece) => piece));
  assert.equal((await short.at(10_000)).length, 16);
  const long = new Clocked(1024 * KIB);
  await long.at(10_000);
  long.ask(0, 1, 2, 3, 4, 5);
  assert.deepEqual([await long.at(10_000), long.signCount], [[0, 1, 2, 3], 1]);
  const huge = new Clocked(8192 * KIB);
  await huge.at(10_000);
  huge.ask(0, 1);
  assert.deepEqual([await huge.at(10_000), huge.signCount], [[0, 1], 2]);
});

test("in a hurry: what waits is signed, and what comes is signed at once", async () => {
  const desk = new Clocked(KIB);
  await desk.at(10_000);
  desk.ask(0, 1);
  desk.desk.hurry();
  desk.desk.hurry();
  assert.deepEqual(await desk.at(10_000), [0, 1]);
  desk.ask(2);
  assert.deepEqual([await desk.at(10_000), desk.signCount], [[0, 1, 2], 2]);
});

test("a key that fails fails what waits, and no more", async () => {
  let isBroken = true;
  const desk = new SigningDesk(
    {
      sign: () => {
        if (isBroken) throw new Error("no key");
        return new Uint8Array(64);
      },
      nowMs: () => 0,
      after: () => () => undefined,
    },
    taskId,
    8192 * KIB,
  );
  await assert.rejects(desk.sign(0, KIB, digest), /no key/);
  isBroken = false;
  assert.equal((await desk.sign(0, KIB, digest)).length, 64);
});
