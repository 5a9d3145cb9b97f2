import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { DfdaemonConfig } from "../dfdaemon/config.ts";
import { resolveConfig, type FlagTexts } from "./config.ts";
import { DFDAEMON, DFGET, SUPERNODE } from "./config-schema.ts";
import type { Machine } from "./machine.ts";
import { dfdaemonConfig, dfgetConfig, supernodeConfig } from "./program-config.ts";

let directory: string;
let machine: Machine;
let empty: string;

before(() => {
  directory = mkdtempSync(join(tmpdir(), "program-config-"));
  empty = join(directory, "empty.yaml");
  writeFileSync(empty, "");
  machine = {
    env: { XDG_STATE_HOME: join(directory, "state") },
    isRoot: false,
    home: directory,
    canWrite: () => false,
  };
});
after(() => rmSync(directory, { recursive: true }));

function daemon(flags: FlagTexts, env: Readonly<Record<string, string>> = {}): DfdaemonConfig {
  const here = { ...machine, env: { ...machine.env, ...env } };
  return dfdaemonConfig(resolveConfig(DFDAEMON, { flags, file: empty }, here), "1", here);
}

test("without a token the peer port of others needs to be wanted", () => {
  assert.throws(() => daemon({}), { code: "CONFIG_INVALID", message: /--join-token-file FILE/ });
  assert.equal(daemon({ peerListen: ["127.0.0.1:0"] }).joinToken, undefined);
  assert.equal(daemon({ insecureNoToken: [] }).joinToken, undefined);
});

test("the token itself, else the named file, else the file of a supernode on this machine", () => {
  const named = join(directory, "token");
  writeFileSync(named, "from-a-file\nsecond line\n");
  assert.equal(daemon({ joinTokenFile: [named] }).joinToken, "from-a-file");
  assert.equal(daemon({ joinTokenFile: [named] }, { DRAGONFLY_JOIN_TOKEN: "from-the-env" }).joinToken, "from-the-env");
  assert.equal(
    daemon({ joinToken: ["from-a-flag"] }, { DRAGONFLY_JOIN_TOKEN: "from-the-env" }).joinToken,
    "from-a-flag",
  );
  assert.throws(() => daemon({ joinTokenFile: [join(directory, "absent")] }), {
    code: "CONFIG_INVALID",
    message: /cannot read a join token/,
  });
  assert.throws(() => daemon({ joinTokenFile: [empty] }), { code: "CONFIG_INVALID", message: /first line is empty/ });

  const local = join(directory, "state/dragonfly/supernode");
  mkdirSync(local, { recursive: true });
  writeFileSync(join(local, "join-token"), "of-this-machine\n");
  assert.equal(daemon({}).joinToken, "of-this-machine");
  rmSync(local, { recursive: true });
});

test("the supernode's token: given, in a file, or none", () => {
  const token = (flags: FlagTexts): unknown =>
    supernodeConfig(resolveConfig(SUPERNODE, { flags, file: empty }, machine), "1").joinToken;
  assert.deepEqual(token({ dataDir: ["/d"] }), { kind: "file", file: "/d/join-token" });
  assert.deepEqual(token({ joinTokenFile: ["/t"] }), { kind: "file", file: "/t" });
  assert.deepEqual(token({ joinToken: ["12345678"] }), { kind: "given", token: "12345678" });
  assert.deepEqual(token({ insecureNoToken: [] }), { kind: "none" });
  assert.throws(() => token({ insecureNoToken: [], joinToken: ["12345678"] }), { code: "CONFIG_INVALID" });
});

test("what a program is given is frozen all through", () => {
  const config = daemon({ insecureNoToken: [], labels: ["a=b"] });
  assert.ok(Object.isFrozen(config) && Object.isFrozen(config.labels) && Object.isFrozen(config.supernodes[0]));
});

test("dfget looks for the system's daemon, then the user's own, unless told where", () => {
  const here = { ...machine, env: { ...machine.env, XDG_RUNTIME_DIR: "/run/user/7" } };
  const get = (flags: FlagTexts): readonly string[] =>
    dfgetConfig(resolveConfig(DFGET, { flags, file: empty }, here), "1", here).socketPaths;
  assert.deepEqual(get({}), ["/run/dragonfly/dfdaemon.sock", "/run/user/7/dragonfly/dfdaemon.sock"]);
  assert.deepEqual(get({ socket: ["/s"] }), ["/s"]);
});
