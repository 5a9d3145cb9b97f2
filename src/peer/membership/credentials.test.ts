import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pieceStatement } from "../../protocol/link-frames.ts";
import { isPeerId, type TaskId } from "../../protocol/ids.ts";
import {
  generateJoinToken,
  generatePeerId,
  loadOrCreateJoinToken,
  secretsEqual,
  SignatureVerifier,
  SigningKey,
} from "./credentials.ts";

const taskId = "a".repeat(64) as TaskId;
const otherTaskId = "b".repeat(64) as TaskId;

function directory(t: { after(fn: () => void): void }): string {
  const path = mkdtempSync(join(tmpdir(), "dragonfly-credentials-"));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

test("the signing key is made once, private to its owner, and signs alike after a restart", (t) => {
  const file = join(directory(t), "state", "signing-key.pem");
  const first = SigningKey.loadOrCreate(file);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const again = SigningKey.loadOrCreate(file);
  assert.deepEqual(again.publicKey, first.publicKey);
  assert.ok(again.deriveSecret("x").equals(first.deriveSecret("x")));
  assert.ok(!again.deriveSecret("x").equals(first.deriveSecret("y")));
  const verifier = new SignatureVerifier(first.publicKey);
  const digest = new Uint8Array(32).fill(7);
  assert.ok(verifier.verify(pieceStatement(taskId, 3, 100, digest), again.signPiece(taskId, 3, 100, digest)));
  assert.ok(verifier.verifyLength(taskId, 100, again.signLength(taskId, 100)));
});

test("a statement about another piece, length, task or digest does not verify", () => {
  const key = SigningKey.generate();
  const verifier = new SignatureVerifier(key.publicKey);
  const digest = new Uint8Array(32).fill(7);
  const signature = key.signPiece(taskId, 3, 100, digest);
  assert.equal(verifier.verify(pieceStatement(taskId, 4, 100, digest), signature), false);
  assert.equal(verifier.verify(pieceStatement(taskId, 3, 101, digest), signature), false);
  assert.equal(verifier.verify(pieceStatement(otherTaskId, 3, 100, digest), signature), false);
  assert.equal(verifier.verify(pieceStatement(taskId, 3, 100, new Uint8Array(32)), signature), false);
  assert.equal(verifier.verify(pieceStatement(taskId, 3, 100, digest), new Uint8Array(5)), false);
  assert.equal(verifier.verifyLength(taskId, 100, signature), false);
});

test("a file that holds no key is named, not overwritten", (t) => {
  const file = join(directory(t), "key");
  writeFileSync(file, "nonsense");
  assert.throws(() => SigningKey.loadOrCreate(file), { code: "DISK_FAILED", message: /key holds no private key/ });
  assert.equal(readFileSync(file, "utf8"), "nonsense");
  assert.throws(() => new SignatureVerifier(new Uint8Array(9)), { code: "PROTOCOL_VIOLATION" });
});

test("the join token is made once and private to its owner", (t) => {
  const file = join(directory(t), "join-token");
  const token = loadOrCreateJoinToken(file);
  assert.match(token, /^[A-Za-z0-9_-]{43}$/);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(loadOrCreateJoinToken(file), token);
  assert.notEqual(generateJoinToken(), token);
  writeFileSync(file, "\n");
  assert.throws(() => loadOrCreateJoinToken(file), { code: "DISK_FAILED" });
});

test("secrets compare by content, whatever their lengths", () => {
  assert.ok(secretsEqual("abc", "abc"));
  assert.ok(!secretsEqual("abc", "abcd"));
  assert.ok(!secretsEqual("abc", ""));
});

test("any host name gives a peer id", () => {
  for (const name of ["web-1", "", "-x", "ümläut host", "a".repeat(300)]) assert.ok(isPeerId(generatePeerId(name)));
});
