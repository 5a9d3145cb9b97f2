import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import { AppError, toAppError } from "../base/errors.ts";
import { CountedBody } from "./counted-body.ts";
import { failure, textOf } from "./local-server.test.ts";

function counted(source: Readable, promisedBytes: number | undefined, cutAfterBytes?: number): CountedBody {
  const classify = (thrown: unknown): AppError => toAppError(thrown, "TIMEOUT");
  return new CountedBody({ source, printableUrl: "http://host/f", promisedBytes, cutAfterBytes, classify });
}

const chunks = (...texts: string[]): Readable => Readable.from(texts.map((text) => Buffer.from(text)), { objectMode: false });

test("a body of the promised length passes, chunks uncopied", async () => {
  const chunk = Buffer.from("0123");
  const body = counted(Readable.from([chunk, Buffer.from("45")], { objectMode: false }), 6);
  const seen: Buffer[] = [];
  for await (const part of body as AsyncIterable<Buffer>) seen.push(part);
  assert.equal(seen[0]?.buffer, chunk.buffer);
  assert.equal(Buffer.concat(seen).toString(), "012345");
  assert.equal(await textOf(counted(chunks(), 0)), "");
  assert.equal(await textOf(counted(chunks("ab"), undefined)), "ab");
});

test("short and long bodies fail, and the source is hung up", async () => {
  await failure(textOf(counted(chunks("01"), 3)), "ORIGIN_CUT");
  const source = chunks("01", "23");
  await failure(textOf(counted(source, 3)), "ORIGIN_LENGTH_WRONG");
  assert.equal(source.destroyed, true);
});

test("a cut ends the body at its byte and hangs up; a promise that falls short of it still counts", async () => {
  const source = chunks("01", "23", "45");
  assert.equal(await textOf(counted(source, 6, 3)), "012");
  assert.equal(source.destroyed, true);
  assert.equal(await textOf(counted(chunks("01"), undefined, 3)), "01");
  await failure(textOf(counted(chunks("01"), 3, 5)), "ORIGIN_CUT");
});

test("an error of the source is classified, and waits for a reader who comes late", async () => {
  const source = new Readable({ read() {} });
  const body = counted(source, 4);
  source.destroy(new Error("slow"));
  await new Promise((resolve) => setImmediate(resolve));
  await failure(textOf(body), "TIMEOUT");
});

test("a source that goes away without a word is a cut, and a reader who leaves closes the source", async () => {
  const gone = new Readable({ read() {} });
  const body = counted(gone, undefined);
  setImmediate(() => gone.destroy());
  await failure(textOf(body), "ORIGIN_CUT");
  const left = new Readable({ read() {} });
  counted(left, undefined).destroy();
  assert.equal(left.destroyed, true);
});

test("a reader who stops reading stops the source", async () => {
  let madeBytes = 0;
  const source = new Readable({
    read(sizeBytes) {
      madeBytes += sizeBytes;
      this.push(Buffer.alloc(sizeBytes));
    },
  });
  const body = counted(source, undefined);
  body.read(0);
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(madeBytes > 0 && madeBytes < 1024 * 1024, `${madeBytes}`);
  body.destroy();
});
