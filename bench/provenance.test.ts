import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { treeOf } from "./provenance.ts";

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), "dragonfly-provenance-"));
  t.after(() => rmSync(made, { recursive: true }));
  return made;
}

/** A repository with one commit. */
function repository(t: TestContext): { readonly root: string; readonly commit: string } {
  const root = folder(t);
  const git = (...args: readonly string[]): string => execFileSync("git", ["-C", root, "-c", "user.name=test", "-c", "user.email=test@example.test", ...args], { encoding: "utf8" }).trim();
  git("init", "--quiet");
  mkdirSync(join(root, "bench/results"), { recursive: true });
  writeFileSync(join(root, "program.ts"), "1\n");
  writeFileSync(join(root, "bench/results/program.jsonl"), "{}\n");
  git("add", ".");
  git("commit", "--quiet", "--no-gpg-sign", "-m", "one");
  return { root, commit: git("rev-parse", "--short", "HEAD") };
}

test("a clean tree is its commit", (t) => {
  const { root, commit } = repository(t);
  assert.equal(treeOf(root), commit);
});

test("a changed tree is told from its commit, staged or not", (t) => {
  const { root, commit } = repository(t);
  writeFileSync(join(root, "program.ts"), "2\n");
  assert.equal(treeOf(root), `${commit}+`);
  execFileSync("git", ["-C", root, "add", "."]);
  assert.equal(treeOf(root), `${commit}+`);
});

test("a result that was filed is no change of the tree, nor is a file that git does not know", (t) => {
  const { root, commit } = repository(t);
  writeFileSync(join(root, "bench/results/program.jsonl"), "{}\n{}\n");
  writeFileSync(join(root, "notes"), "");
  assert.equal(treeOf(root), commit);
});

test("outside git there is no tree", (t) => {
  assert.equal(treeOf(folder(t)), undefined);
});
