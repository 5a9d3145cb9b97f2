import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import { parseToml, setTomlString } from "./toml-text.ts";

const KEYS = ["plugins", "io.containerd.grpc.v1.cri", "registry"];
const set = (text: string): string => setTomlString(text, KEYS, "config_path", "/etc/c", "/f.toml");

test("a value in an existing table changes in place; comments, quotes and order stay", () => {
  const text = `# top\nversion = 2\n\n[plugins.'io.containerd.grpc.v1.cri'.registry] # mirrors\n  # before\n  config_path = ''   # after\n  other = 1\n\n[z]\nconfig_path = "not this"\n`;
  assert.equal(set(text), text.replace("config_path = ''", 'config_path = "/etc/c"'));
  assert.equal(set(set(text)), set(text));
});

test("a missing value goes below its table's header, indented as it", () => {
  assert.equal(
    set(`  [plugins."io.containerd.grpc.v1.cri".registry]\n    a = 1\n[b]\n`),
    `  [plugins."io.containerd.grpc.v1.cri".registry]\n    config_path = "/etc/c"\n    a = 1\n[b]\n`,
  );
  assert.equal(set(`[plugins."io.containerd.grpc.v1.cri".registry]`), `[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/c"`);
});

test("a missing table goes to the end, in the file's own line endings, ended or not", () => {
  const table = `[plugins."io.containerd.grpc.v1.cri".registry]`;
  assert.equal(set(""), `${table}\n  config_path = "/etc/c"\n`);
  assert.equal(set("a = 1"), `a = 1\n\n${table}\n  config_path = "/etc/c"\n`);
  assert.equal(set("a = 1\r\nb = 2\r\n"), `a = 1\r\nb = 2\r\n\r\n${table}\r\n  config_path = "/etc/c"\r\n`);
});

test("what only looks like a table or a value is not taken for it", () => {
  const text = `a = """\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = ""\n"""\nb = [\n  [ "x" ],\n]\n`;
  assert.throws(() => set(text), /cannot be changed safely; put this into it by hand: .*config_path = "\/etc\/c"/);
  assert.throws(() => set(`plugins = { "io.containerd.grpc.v1.cri" = { registry = {} } }\n`), /cannot be changed safely/);
});

test("a broken file is named with its line", () => {
  assert.throws(
    () => parseToml("a = 1\nb = \n", "/etc/x.toml"),
    (thrown) => thrown instanceof AppError && thrown.code === "CONFIG_INVALID" && thrown.message.startsWith("/etc/x.toml:2: "),
  );
});
