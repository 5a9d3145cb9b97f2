import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, test } from "node:test";
import { blake3Backend, createPieceHasher, nativeHash, pieceDigest, portableHash, type PieceHash } from "./piece-hash.ts";

const KIB = 1024;
const LENGTHS = [0, 1, 2, 63, 64, 65, 1023, 1024, 1025, 3 * KIB + 7, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, KIB * KIB];

function patternOf(lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(new SharedArrayBuffer(lengthBytes + 3)).subarray(3);
  for (let at = 0; at < bytes.length; at++) bytes[at] = at % 251;
  return bytes;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function inParts(hash: PieceHash, bytes: Uint8Array, partLengthBytes: number): string {
  const hasher = hash.create();
  for (let at = 0; at < bytes.length; at += partLengthBytes) hasher.update(bytes.subarray(at, at + partLengthBytes));
  return hex(hasher.digest());
}

describe("piece hash", () => {
  test("the portable one gives the published BLAKE3 vectors", () => {
    // Source: test_vectors.json of the BLAKE3 reference (input byte i = i mod 251).
    assert.equal(hex(portableHash.digest(patternOf(0))), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    assert.equal(hex(portableHash.digest(patternOf(1))), "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213");
    assert.equal(hex(portableHash.digest(patternOf(1024))), "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7");
  });

  test("native and portable give the same digests, whole and in parts", { skip: nativeHash === undefined && "no native package" }, () => {
    assert.ok(nativeHash);
    for (const lengthBytes of LENGTHS) {
      const bytes = patternOf(lengthBytes);
      const expected = hex(portableHash.digest(bytes));
      assert.equal(hex(nativeHash.digest(bytes)), expected, `${lengthBytes} bytes`);
      for (const part of [1000, 64 * KIB]) {
        assert.equal(inParts(nativeHash, bytes, part), expected, `${lengthBytes} bytes by ${part}, native`);
        assert.equal(inParts(portableHash, bytes, part), expected, `${lengthBytes} bytes by ${part}, portable`);
      }
    }
  });

  test("a process without the native package falls back, and answers the same", () => {
    const code = `
      import { registerHooks } from "node:module";
      registerHooks({ resolve(name, context, next) {
        if (name.startsWith("@napi-rs/")) throw Object.assign(new Error("not here"), { code: "MODULE_NOT_FOUND" });
        return next(name, context);
      } });
      const { blake3Backend, pieceDigest, createPieceHasher } = await import(${JSON.stringify(import.meta.resolve("./piece-hash.ts"))});
      const bytes = Uint8Array.from({ length: 5000 }, (_, at) => at % 251);
      const hasher = createPieceHasher();
      hasher.update(bytes.subarray(0, 77));
      hasher.update(bytes.subarray(77));
      console.log(blake3Backend, Buffer.from(pieceDigest(bytes)).toString("hex"), Buffer.from(hasher.digest()).toString("hex"));`;
    const output = execFileSync(process.execPath, ["--input-type=module", "--eval", code], { encoding: "utf8" });
    const expected = hex(pieceDigest(patternOf(5000)));
    assert.equal(output.trim(), `portable ${expected} ${expected}`);
  });

  test("the choice is named", () => {
    assert.equal(blake3Backend, nativeHash === undefined ? "portable" : "native");
    assert.equal(createPieceHasher().digest().length, 32);
  });
});
