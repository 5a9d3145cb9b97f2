import assert from "node:assert/strict";
import { test } from "node:test";
import { CommandLine } from "./command-line.ts";
import { DFGET } from "./config-schema.ts";
import { addDfgetFlags, aliasedSettings, dfgetJob, ignoredFlags, type DfgetJob } from "./dfget-flags.ts";
import type { FlagTexts } from "./config.ts";

function parse(...argv: readonly string[]): {
  readonly job: () => DfgetJob;
  readonly flags: FlagTexts;
  readonly ignored: readonly string[];
} {
  const commandLine = new CommandLine(DFGET, "1", { "--timeout": "-T" });
  const { command } = commandLine;
  addDfgetFlags(command);
  const parsed = commandLine.parse(argv);
  assert.equal(parsed.kind, "run");
  const flags = parsed.kind === "run" ? { ...aliasedSettings(command), ...parsed.flags } : {};
  return { job: () => dfgetJob(command), flags, ignored: ignoredFlags(command) };
}

const SHA = `sha256:${"a".repeat(64)}`;
const MD5 = "b".repeat(32);

test("a download in today's names", () => {
  const { job, flags } = parse(
    "http://o/dir/f%20x.tar?sig=1",
    "-O",
    "out",
    "-H",
    "Authorization: Bearer x",
    "-H",
    "X: 1",
    "-H",
    "x: 2",
    "--digest",
    SHA,
    "--digest",
    `md5:${MD5}`,
    "-c",
    "--force",
    "--tag",
    "t",
    "--application",
    "a",
    "--filter",
    "sig&exp",
    "--json",
    "-q",
    "-T",
    "30",
    "--limit-rate",
    "10M",
    "--no-back-source",
  );
  assert.deepEqual(job(), {
    source: {
      url: "http://o/dir/f%20x.tar?sig=1",
      headers: { authorization: "Bearer x", x: "1, 2" },
      digest: SHA,
      tag: "t",
      application: "a",
      filteredQueryParameters: ["sig", "exp"],
    },
    output: "out",
    digests: [SHA, `md5:${MD5}`],
    overwrite: true,
    resume: true,
    json: true,
    explain: false,
    verbosity: "quiet",
    originOnly: false,
  });
  assert.deepEqual(flags, { timeout: ["30"], limitRate: ["10M"], backToSource: [] });
});

test("the same in the names of Dragonfly 1.0, and of 2", () => {
  const { job, flags, ignored } = parse(
    "-u",
    "http://o/f",
    "-o",
    "out",
    "-m",
    MD5,
    "-i",
    "id",
    "-n",
    "a,b=2",
    "--node",
    "c",
    "-s",
    "20m",
    "--notbs",
    "-e",
    "5m0s",
    "-f",
    "a&b",
    "--callsystem",
    "ci",
    "--header",
    "A: b",
    "--verbose",
    "-p",
    "p2p",
    "--minrate",
    "64k",
    "--dfdaemon",
    "-b",
    "--clientqueue",
    "6",
  );
  const { source, output, digests, verbosity } = job();
  assert.deepEqual(source, {
    url: "http://o/f",
    headers: { a: "b" },
    digest: `md5:${MD5}`,
    tag: "id",
    application: "ci",
    filteredQueryParameters: ["a", "b"],
  });
  assert.deepEqual([output, digests, verbosity], ["out", [`md5:${MD5}`], "verbose"]);
  assert.deepEqual(flags, { supernodes: ["a,b=2", "c"], limitRate: ["20m"], backToSource: [], timeout: ["5m0s"] });
  assert.deepEqual(
    ignored.map((line) => line.split(" ")[1]),
    ["--minrate", "--dfdaemon", "--clientqueue", "--showbar"],
  );
  const second = parse(
    "http://o/f",
    "--disable-back-to-source",
    "--overwrite",
    "--filtered-query-param",
    "a",
    "--filtered-query-param",
    "b",
  );
  assert.deepEqual([second.job().overwrite, second.job().source.filteredQueryParameters], [true, ["a", "b"]]);
  assert.deepEqual(second.flags, { backToSource: [] });
});

test("0 is no limit in 1.0's names, and today's name wins over the old one", () => {
  assert.deepEqual(parse("http://o/f", "--totallimit", "0", "-e", "0").flags, {
    limitRate: ["none"],
    timeout: ["none"],
  });
  assert.deepEqual(parse("http://o/f", "-s", "20m", "--limit-rate", "1m").flags, { limitRate: ["1m"] });
  assert.equal(parse("http://o/f", "-p", "source").job().originOnly, true);
});

test("without -O the file is named as in the URL", () => {
  assert.equal(parse("http://o/dir/f%20x.tar?sig=1#frag").job().output, "./f x.tar");
  assert.equal(parse("http://o/-O").job().output, "./-O");
  assert.equal(parse("http://o/%zz").job().output, "./%zz");
  for (const url of ["http://o/", "http://o/dir/", "http://o/..%2Fpasswd", "http://o/%2e%2e"]) {
    assert.throws(parse(url).job, { code: "USAGE", message: /-O FILE/ }, url);
  }
});

test("what cannot be meant is refused", () => {
  const refused: readonly (readonly [readonly string[], string, RegExp])[] = [
    [[], "USAGE", /one URL, but got 0/],
    [["-u", "http://o/f", "http://o/g"], "USAGE", /one URL, but got 2/],
    [["http://["], "URL_INVALID", /./],
    [["gopher://o/f"], "SCHEME_UNSUPPORTED", /./],
    [["http://o/f", "--digest", "sha256:short"], "USAGE", /--digest: "sha256:short" is no digest/],
    [["http://o/f", "-m", "x"], "USAGE", /--md5/],
    [["http://o/f", "-H", "no header"], "USAGE", /--header/],
    [["http://o/f", "-H", "Range: bytes=0-1"], "USAGE", /Range/],
    [["http://o/f", "-O", ""], "USAGE", /-O needs/],
    [["http://o/f", "-p", "x"], "USAGE", /--pattern/],
  ];
  for (const [argv, code, message] of refused) assert.throws(parse(...argv).job, { code, message }, argv.join(" "));
  assert.throws(() => parse("http://o/f", "--no-such-flag"), {
    code: "USAGE",
    message: /no-such-flag.*try dfget --help$/,
  });
  assert.throws(() => parse("http://o/f", "http://o/g"), { code: "USAGE" });
});

test("a header that is none is not repeated in the message: it may hold a password", () => {
  assert.throws(parse("http://o/f", "-H", "Bearer secret").job, (error: Error) => !error.message.includes("secret"));
});

test("a priority is one of three words", () => {
  assert.equal(parse("http://o/f", "--priority", "preheat").job().source.priority, "preheat");
  assert.equal(parse("http://o/f").job().source.priority, undefined);
  assert.throws(() => parse("http://o/f", "--priority", "urgent"), { code: "USAGE" });
});
