import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import { CommandLine, type Parsed } from "./command-line.ts";
import { DFDAEMON, type DFDAEMON_SETTINGS } from "./config-schema.ts";
import type { Subcommand } from "./subcommand.ts";

type Settings = typeof DFDAEMON_SETTINGS;

const run = (): Promise<number> => Promise.resolve(0);
const group = { name: "cache", summary: "looks into the cache" };
const PRINT: Subcommand<Settings> = {
  name: "print",
  summary: "prints what is asked for",
  takes: ["listen", "socket"],
  // Named as a setting that it does not take.
  declare: (command) => void command.option("--registry <host>", "one registry").argument("[word]"),
  run,
};
const LIST: Subcommand<Settings> = { name: "list", summary: "lists files", group, takes: [], run };
const REMOVE: Subcommand<Settings> = { ...LIST, name: "rm", summary: "removes a file" };

function parse(...argv: readonly string[]): Parsed<Settings> {
  const commandLine = new CommandLine(DFDAEMON, "1.2.3");
  for (const subcommand of [PRINT, LIST, REMOVE]) commandLine.addSubcommand(subcommand);
  return commandLine.parse(argv);
}

function ran(...argv: readonly string[]): Extract<Parsed<Settings>, { kind: "run" }> {
  const parsed = parse(...argv);
  assert.ok(parsed.kind === "run");
  return parsed;
}

function refused(message: RegExp, ...argv: readonly string[]): void {
  assert.throws(() => parse(...argv), (thrown) => thrown instanceof AppError && thrown.code === "USAGE" && message.test(thrown.message));
}

test("without a subcommand the program itself is called, with its settings", () => {
  const parsed = ran("--listen", "127.0.0.1:1", "--registry", "a=http://a", "--print-config", "--config", "file");
  assert.equal(parsed.subcommand, undefined);
  assert.deepEqual(parsed.flags, { listen: ["127.0.0.1:1"], registries: ["a=http://a"] });
  assert.equal(parsed.printConfig, true);
  assert.equal(parsed.configFile, "file");
});

test("a subcommand has the settings it takes, --config, and what it declares", () => {
  const parsed = ran("print", "--registry", "reg.test", "--listen", "127.0.0.1:1", "word", "--config", "file");
  assert.equal(parsed.subcommand, PRINT);
  assert.deepEqual(parsed.flags, { listen: ["127.0.0.1:1"] });
  assert.equal(parsed.configFile, "file");
  assert.equal(parsed.command.opts<{ registry: string }>().registry, "reg.test");
  assert.deepEqual(parsed.command.args, ["word"]);
  refused(/unknown option '--peer-listen'/, "print", "--peer-listen", "0.0.0.0:1");
});

test("subcommands of a group are told apart", () => {
  assert.equal(ran("cache", "list").subcommand, LIST);
  assert.equal(ran("cache", "rm").subcommand, REMOVE);
  refused(/a subcommand is missing/, "cache");
  refused(/unknown command 'clear'/, "cache", "clear");
});

test("flags before a subcommand are refused, not passed over", () => {
  refused(/--config stands before "print"/, "--config", "file", "print");
  refused(/--listen stands before "cache list"/, "--listen", "127.0.0.1:1", "cache", "list");
  refused(/too many arguments/, "unheard-of");
});

test("each has its help, and the program's names them all", () => {
  const text = (...argv: readonly string[]): string => {
    const parsed = parse(...argv);
    assert.ok(parsed.kind === "text");
    return parsed.text;
  };
  assert.match(text("--help"), /print \[options\] \[word\] +prints what is asked for\n +cache +looks into the cache\n/);
  assert.match(text("print", "--help"), /Usage: dfdaemon print \[options\] \[word\]\n\nprints what is asked for\.\n[^]*--registry <host> +one registry/);
  assert.match(text("cache", "--help"), /rm \[options\] +removes a file/);
  assert.doesNotMatch(text("cache", "--help"), /help \[command\]/, "it takes none");
  assert.match(text("cache", "rm", "-h"), /Usage: dfdaemon cache rm/);
  assert.equal(text("--version"), "dfdaemon 1.2.3\n");
});
