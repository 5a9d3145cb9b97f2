/** The kinds of settings that say how origins are reached. */
import { isHostPattern, isNetwork } from "../dfdaemon/proxy/patterns.ts";
import { fromZod, type Zod } from "./on-demand.ts";
import { items, last, noneOr, optionalPath, quote, reader, scalar, splitAtEquals, within, type Kind } from "./setting-kinds.ts";

const PRINTED_LOGIN = "<secret>";
/** Of a list that is looked through for every request. */
const ENTRIES_MAX = 1024;

/** What the configuration says about one server; the files are not read yet. */
export interface OriginSetting {
  /** `URL.origin`. */
  readonly url: string;
  readonly caFile: string | undefined;
  readonly username: string | undefined;
  readonly passwordFile: string | undefined;
}

const originSetting = (z: Zod) => z
  .strictObject(
    {
      url: z.string({ error: "url is missing" }).transform((text, context) => {
        const url = URL.parse(text);
        const isBare = url !== null && url.href === `${url.origin}/` && /^https?:$/.test(url.protocol);
        if (isBare) return url.origin;
        // What is in it may be a password.
        context.addIssue({ code: "custom", message: "the url is not of the form https://host[:port], without path and user" });
        return z.NEVER;
      }),
      caFile: within(z, optionalPath).optional(),
      username: z.string().min(1).max(255).optional(),
      passwordFile: within(z, optionalPath).optional(),
    },
    {
      error: (issue) => (issue.code === "invalid_type" ? `${quote(issue.input)} is not a mapping with a url` : undefined),
    },
  )
  .refine(({ username, passwordFile }) => (username === undefined) === (passwordFile === undefined), {
    error: "username and passwordFile go together",
  })
  .refine(({ caFile, username }) => caFile !== undefined || username !== undefined, {
    error: "nothing is said of the server: write URL=FILE, in a file url: and caFile:, or username: and passwordFile:",
  });

export const origins: Kind<readonly OriginSetting[]> = {
  example: "[{url: https://reg.example, caFile: /etc/ssl/own.pem, username: me, passwordFile: /etc/dragonfly/reg}]",
  valueName: "URL=FILE",
  schema: fromZod((z) => z
    .array(originSetting(z), { error: (issue) => `${quote(issue.input)} is not a list of servers` })
    .transform((list, context) => {
      const seen = new Set<string>();
      for (const [index, { url }] of list.entries()) {
        if (seen.has(url)) context.addIssue({ code: "custom", message: `${quote(url)} is given twice`, path: [index, "url"] });
        seen.add(url);
      }
      return list.map(({ url, caFile, username, passwordFile }) => ({ url, caFile, username, passwordFile }));
    })),
  fromTexts: (texts) =>
    items(texts).map((text) => {
      const [url, caFile] = splitAtEquals(text);
      return { url, caFile };
    }),
  print: (value) => (value.length === 0 ? undefined : value.map((server) => ({ ...server }))),
};

/** "none", or the URL of a proxy. It may hold a password, which is neither printed nor quoted in a message. */
export const proxyOrNone: Kind<string | undefined> = noneOr({
  example: "http://proxy.example:3128",
  valueName: "URL",
  schema: reader(
    (input) => (typeof input === "string" ? parseProxy(input) : undefined),
    () => "a proxy is written http://[user:password@]host:port, or https:// (none = no proxy)",
  ),
  fromTexts: last,
  print: (value) => value.replace(/\/\/.*@/, `//${PRINTED_LOGIN}@`),
});

export const hostExceptions: Kind<string> = scalar(
  "LIST",
  "example.org,10.0.0.0/8",
  "a list of hosts",
  (text) => (/^[\x20-\x7e]{0,8192}$/.test(text) ? text : undefined),
  (value) => (value === "" ? undefined : value),
);

/** A list of texts, each of which `isGood`; the word none is an empty list. */
export function texts(valueName: string, example: string, expected: string, isGood: (text: string) => boolean): Kind<readonly string[]> {
  return checkedTexts(valueName, example, (text) => (isGood(text) ? undefined : `is not ${expected}`));
}

/** As {@link texts}. @param fault what is wrong with one, as the end of a sentence about it; undefined when nothing is */
export function checkedTexts(valueName: string, example: string, fault: (text: string) => string | undefined): Kind<readonly string[]> {
  const isText = (input: unknown): boolean => typeof input === "string" || typeof input === "number";
  const one = {
    schema: reader(
      (input) => (isText(input) && fault(String(input)) === undefined ? String(input) : undefined),
      (input) => `${quote(input)} ${(isText(input) ? fault(String(input)) : undefined) ?? "is not a text"}`,
    ),
  };
  const list = fromZod((z) => z.array(within(z, one), { error: (issue) => `${quote(issue.input)} is not a list` }).max(ENTRIES_MAX, { error: `more than ${ENTRIES_MAX} entries` }));
  return {
    example: `[${example}]`,
    valueName,
    schema: list,
    fromTexts: (given) => (given.length === 1 && given[0] === "none" ? [] : items(given)),
    print: (value) => (value.length === 0 ? undefined : value),
  };
}

export const hostPatterns: Kind<readonly string[]> = texts(
  "HOST",
  "reg.example, '*.corp.example:5000'",
  "a host such as reg.example, reg.example:5000 or *.example",
  isHostPattern,
);

/** A scheme and host that no parsed URL begins with: a glob of it would match nothing, and nobody would say so. */
const NEVER_IN_URLS = /^https?:\/\/[^/]*[A-Z]|^https:\/\/[^/]*:443(?:\/|$)|^http:\/\/[^/]*:80(?:\/|$)/;

export const urlGlobs: Kind<readonly string[]> = texts(
  "GLOB",
  "'https://files.example/**'",
  "a URL such as https://files.example/**, * for a part of the path and ** for any, without query, its host in lower case and without :443 or :80",
  (text) => /^[\x21-\x7e]{1,1024}$/.test(text) && !/[?#@]/.test(text) && /^(?:https?:\/\/|\*)/.test(text) && !NEVER_IN_URLS.test(text),
);

/** An empty list is printed, for it is not what says nothing: that is the default. */
export const networks: Kind<readonly string[]> = {
  ...texts("NETWORK", "10.0.0.0/8", "an address or a network such as 10.0.0.0/8", isNetwork),
  print: (value) => value,
};

/** As other programs read these variables: without a scheme it is http. What was printed in a password's place is none. */
function parseProxy(text: string): string | undefined {
  if (text.includes(`//${PRINTED_LOGIN}@`)) return undefined;
  const url = URL.parse(/^[a-z0-9+.-]+:\/\//i.test(text) ? text : `http://${text}`);
  if (url === null || !/^https?:$/.test(url.protocol) || url.hostname === "" || url.pathname !== "/") return undefined;
  try {
    decodeURIComponent(`${url.username}${url.password}`);
  } catch {
    return undefined;
  }
  return url.search === "" && url.hash === "" ? url.href : undefined;
}
