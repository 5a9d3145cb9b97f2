import { isIP } from "node:net";

// What the operator lists: hosts whose TLS is ended here, URLs of files that go through the swarm, networks of clients.

/** Hosts by name: `reg.example` (port 443), `reg.example:5000`, `*.example` (any name below, port 443), `*.example:*`. */
export class HostList {
  readonly #entries: readonly { readonly name: string; readonly isSuffix: boolean; readonly port: number | undefined }[];

  constructor(patterns: readonly string[]) {
    this.#entries = patterns.map((pattern) => {
      const [, name = "", port = "443"] = HOST_PATTERN.exec(pattern.toLowerCase()) ?? [];
      const isSuffix = name.startsWith("*.");
      return { name: isSuffix ? name.slice(1) : unbracketed(name), isSuffix, port: port === "*" ? undefined : Number(port) };
    });
  }

  /** @param host lower case, an IPv6 address without brackets */
  has(host: string, port: number): boolean {
    return this.#entries.some((entry) => {
      if (entry.port !== undefined && entry.port !== port) return false;
      return entry.isSuffix ? host.endsWith(entry.name) && host.length > entry.name.length : host === entry.name;
    });
  }
}

/** True for what a {@link HostList} can be made of. */
export function isHostPattern(text: string): boolean {
  return text.length <= 255 && HOST_PATTERN.test(text.toLowerCase());
}

/**
 * URLs by glob, over scheme, host, port and path; the query plays no part. `*` stands for any characters but `/`,
 * `**` for any at all. Takes no longer than the product of both lengths, whatever the pattern.
 */
export class UrlGlobs {
  readonly #globs: readonly (readonly string[])[];

  constructor(globs: readonly string[]) {
    this.#globs = globs.map((glob) => glob.match(/\*\*|[^]/g) ?? []);
  }

  has(url: URL): boolean {
    const text = `${url.protocol}//${url.host}${url.pathname}`;
    return text.length <= URL_CHARS_MAX && this.#globs.some((glob) => matches(glob, text));
  }
}

/** @param glob single characters, `*` and `**` */
function matches(glob: readonly string[], text: string): boolean {
  // Which beginnings of the glob fit the text so far: an automaton, all of whose states are followed at once.
  let states = closure(glob, new Set([0]));
  for (const character of text) {
    const next = new Set<number>();
    for (const state of states) {
      const token = glob[state];
      if (token === "**" || (token === "*" && character !== "/")) next.add(state);
      else if (token === character) next.add(state + 1);
    }
    if (next.size === 0) return false;
    states = closure(glob, next);
  }
  return states.has(glob.length);
}

/** A star may stand for nothing. */
function closure(glob: readonly string[], states: Set<number>): Set<number> {
  for (const state of states) if (glob[state] === "*" || glob[state] === "**") states.add(state + 1);
  return states;
}

/** True for `address` or `address/bits`. */
export function isNetwork(text: string): boolean {
  const [address = "", bits, ...more] = text.split("/");
  const family = isIP(address);
  return family !== 0 && more.length === 0 && (bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 6 ? 128 : 32)));
}

function unbracketed(name: string): string {
  return name.replace(/^\[(.+)\]$/, "$1");
}

const HOST_PATTERN = /^((?:\*\.)?[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(\d{1,5}|\*))?$/;

/** Longer ones are no files that several hosts would fetch. */
const URL_CHARS_MAX = 4096;
