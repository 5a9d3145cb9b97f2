/** dfget's own flags: what one download is, in today's names and in those of Dragonfly 1.0 and 2. */
import { Option, type Command } from "commander";
import { AppError } from "../base/errors.ts";
import { PRIORITIES, type Priority } from "../base/priority.ts";
import { parseOriginUrl } from "../origin/origin-url.ts";
import type { Source } from "../protocol/control-messages.ts";
import type { Digest } from "../protocol/ids.ts";
import { collect } from "./command-line.ts";
import { requireDigest, strongestDigest } from "./digest-check.ts";

/** One download. */
export interface DfgetJob {
  readonly source: Source;
  /** A path, or `-` for stdout. */
  readonly output: string;
  /** Every one of them is checked. */
  readonly digests: readonly Digest[];
  readonly overwrite: boolean;
  readonly resume: boolean;
  readonly json: boolean;
  /** Say what its time went by. */
  readonly explain: boolean;
  readonly verbosity: "quiet" | "normal" | "verbose";
  /** Straight from the origin, without daemon or swarm. */
  readonly originOnly: boolean;
}

/** Adds dfget's flags; those that only other versions know are hidden. */
export function addDfgetFlags(command: Command): void {
  command
    .usage("[options] URL")
    .argument("[url]", "what to download, http: or https:")
    .option("-O, --output <FILE>", "where to; - is stdout; default: the last part of the URL, in this folder")
    .option("-H, --header <NAME: VALUE>", "send this header to the origin; may be repeated", collect)
    .option("--digest <ALGORITHM:HEX>", "check the file: sha256, sha512, sha1 or md5; may be repeated", collect)
    .option("-c, --continue", "go on with FILE.part of an earlier run, if the file is still the same")
    .option("--force", "overwrite FILE")
    .option("--tag <TEXT>", "keeps downloads of one URL apart that must not share")
    .option("--application <TEXT>", "who downloads, likewise")
    .addOption(
      new Option("--priority <WORD>", "its share where a limit is shared: interactive (default), normal or preheat").choices(PRIORITIES),
    )
    .option(
      "-f, --filter <a&b>",
      "query parameters of the URL that do not tell files apart, such as signatures",
      collect,
    )
    .option("--json", "at the end one JSON object on stdout (on stderr with -O -)")
    .option("--explain", "at the end say on stderr what the download was bound by, with figures")
    .option("-q, --quiet", "no progress, only errors")
    .option("-v, --verbose", "say which way was taken, and why");
  const hidden = (flags: string, repeatable = false): void => {
    const option = new Option(flags).hideHelp();
    command.addOption(repeatable ? option.argParser(collect) : option);
  };
  for (const flags of [
    "-u, --url <url>",
    "-o <file>",
    "-m, --md5 <hex>",
    "-i, --identifier <text>",
    "-p, --pattern <word>",
    "-e <time>",
    "--callsystem <text>",
  ])
    hidden(flags);
  for (const flags of [
    "-n, --node <list>",
    "-s, --locallimit <rate>",
    "--totallimit <rate>",
    "--filtered-query-param <name>",
  ])
    hidden(flags, true);
  for (const flags of ["--notbs", "--disable-back-to-source", "--overwrite"]) hidden(flags);
  for (const { flags } of IGNORED) hidden(flags);
}

/**
 * Other versions' names of settings, as flags of ours: `--node` is `--supernode`. Goes under what our own names say.
 *
 * @returns flag texts by setting
 */
export function aliasedSettings(command: Command): Readonly<Record<string, readonly string[]>> {
  const given = command.opts<Record<string, unknown>>();
  const texts = (name: string): readonly string[] => (given[name] as readonly string[] | undefined) ?? [];
  const aliased: Record<string, readonly string[]> = {};
  if (texts("node").length > 0) aliased["supernodes"] = texts("node");
  const rates = [...texts("totallimit"), ...texts("locallimit")];
  if (rates.length > 0) aliased["limitRate"] = rates.map(zeroIsNone);
  if (typeof given["e"] === "string") aliased["timeout"] = [zeroIsNone(given["e"])];
  if (given["notbs"] === true || given["disableBackToSource"] === true) aliased["backToSource"] = [];
  return aliased;
}

/** One line per flag that was understood and does nothing here. */
export function ignoredFlags(command: Command): readonly string[] {
  return IGNORED.filter(({ name }) => command.getOptionValueSource(name) === "cli").map(
    ({ flags, why }) => `ignored: ${flags.replace(/^-., /, "").replace(/ .*/, "")} (${why})`,
  );
}

/** @throws AppError USAGE, URL_INVALID, SCHEME_UNSUPPORTED */
export function dfgetJob(command: Command): DfgetJob {
  const given = command.opts<GivenFlags>();
  const urls = [...command.args, ...(given.url === undefined ? [] : [given.url])];
  const url = urls[0];
  if (url === undefined || urls.length > 1) {
    throw new AppError("USAGE", `dfget takes one URL, but got ${urls.length}; try dfget --help`);
  }
  const parsed = parseOriginUrl(url);
  const output = given.output ?? given.o ?? lastSegment(parsed);
  if (output === "") throw new AppError("USAGE", "-O needs a file name, or - for stdout");
  const digests = [
    ...(given.digest ?? []).map((text) => requireDigest(text, "--digest")),
    ...(given.md5 === undefined ? [] : [requireDigest(`md5:${given.md5}`, "--md5")]),
  ];
  if (given.pattern !== undefined && !["p2p", "cdn", "source"].includes(given.pattern)) {
    throw new AppError("USAGE", `--pattern: ${JSON.stringify(given.pattern)} is not one of p2p, cdn, source`);
  }
  return {
    source: {
      url: parsed.href,
      headers: parseHeaders(given.header ?? []),
      ...optional("digest", strongestDigest(digests)),
      ...optional("tag", given.tag ?? given.identifier),
      ...optional("application", given.application ?? given.callsystem),
      ...optional("filteredQueryParameters", filterOf(given)),
      ...optional("priority", given.priority),
    },
    output,
    digests,
    overwrite: given.force === true || given.overwrite === true,
    resume: given.continue === true,
    json: given.json === true,
    explain: given.explain === true,
    verbosity: given.quiet === true ? "quiet" : given.verbose === true ? "verbose" : "normal",
    originOnly: given.pattern === "source",
  };
}

interface GivenFlags {
  readonly url?: string;
  readonly output?: string;
  readonly o?: string;
  readonly header?: readonly string[];
  readonly digest?: readonly string[];
  readonly md5?: string;
  readonly continue?: true;
  readonly force?: true;
  readonly overwrite?: true;
  readonly tag?: string;
  readonly identifier?: string;
  readonly application?: string;
  readonly callsystem?: string;
  readonly priority?: Priority;
  readonly filter?: readonly string[];
  readonly filteredQueryParam?: readonly string[];
  readonly pattern?: string;
  readonly json?: true;
  readonly explain?: true;
  readonly quiet?: true;
  readonly verbose?: true;
}

/** `Name: value`; a name given twice is one list, as Dragonfly 1.0 and RFC 9110 §5.3 have it. */
function parseHeaders(lines: readonly string[]): Readonly<Record<string, string>> {
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).trim().toLowerCase();
    const value = line.slice(colon + 1).trim();
    if (colon < 0 || !/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name) || /[\0\r\n]/.test(value)) {
      // The value may be a credential: only what stands before the colon is repeated.
      throw new AppError(
        "USAGE",
        `--header: ${JSON.stringify(colon < 0 ? "" : name.slice(0, 80))} is no header; write 'Name: value'`,
      );
    }
    if (name === "range") throw new AppError("USAGE", "--header: dfget fetches whole files and sends its own Range");
    if (value === "") continue;
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
  }
  return headers;
}

function filterOf(given: GivenFlags): string[] | undefined {
  const names = [...(given.filter ?? []), ...(given.filteredQueryParam ?? [])].flatMap((text) => text.split("&"));
  return names.length === 0 ? undefined : names.filter((name) => name !== "");
}

/** The file name in a URL, decoded where that gives a plain name. */
function lastSegment(url: URL): string {
  const segment = url.pathname.split("/").at(-1) ?? "";
  let name = segment;
  try {
    name = decodeURIComponent(segment);
  } catch {
    // Not UTF-8: the name stays as the URL has it.
  }
  if (name !== "" && !/^\.{1,2}$|[/\0]/.test(name)) return `./${name}`;
  throw new AppError("USAGE", "the URL ends in no file name; say where to with -O FILE");
}

function optional<K extends string, V>(key: K, value: V | undefined): { readonly [P in K]?: V } {
  return (value === undefined ? {} : { [key]: value }) as { readonly [P in K]?: V };
}

/** Dragonfly 1.0 writes "no limit" as 0. */
function zeroIsNone(text: string): string {
  return /^0+([a-z]*)$/i.test(text.trim()) ? "none" : text;
}

const IGNORED: readonly { readonly flags: string; readonly name: string; readonly why: string }[] = [
  { flags: "--minrate <rate>", name: "minrate", why: "use --timeout" },
  { flags: "--cacerts <list>", name: "cacerts", why: "authorities come from the system and from NODE_EXTRA_CA_CERTS" },
  { flags: "--dfdaemon", name: "dfdaemon", why: "a dfdaemon that runs is always used" },
  { flags: "--insecure", name: "insecure", why: "certificates are always checked" },
  { flags: "--clientqueue <count>", name: "clientqueue", why: "queues size themselves" },
  { flags: "-b, --showbar", name: "showbar", why: "see --progress" },
  { flags: "--console", name: "console", why: "messages always go to stderr" },
  { flags: "--home <dir>", name: "home", why: "nothing is kept" },
  { flags: "--ip <address>", name: "ip", why: "see --advertise" },
  { flags: "--port <port>", name: "port", why: "the system chooses one" },
  { flags: "--expiretime <time>", name: "expiretime", why: "nothing is kept" },
  { flags: "--alivetime <time>", name: "alivetime", why: "a dfget serves while it runs" },
];
