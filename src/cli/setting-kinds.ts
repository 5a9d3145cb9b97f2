/**
 * The kinds of values a setting can have. A kind reads what YAML, a flag or the environment gives, says in one sentence
 * what is wrong with it, and prints a value the way it would be written in a file.
 */
import { isIPv6 } from "node:net";
import { isAbsolute, resolve } from "node:path";
import type { z } from "zod";
import { fromZod, type Zod } from "./on-demand.ts";
import type { HostLabels, ListenAddress, SupernodeAddress } from "../peer/config.ts";
import type { OriginSetting } from "./network-kinds.ts";
import type { RegistryAccess, RegistryConfig } from "../dfdaemon/config.ts";
import type { OriginBudgetConfig } from "../supernode/config.ts";
import {
  isHostName,
  parseListenAddress,
  parseSupernodeAddress,
  printAddress,
  printSupernodeAddress,
} from "./addresses.ts";
import { parseDuration, parseRate, parseSize, printDuration, printSize } from "./units.ts";

/** The part of a zod schema that settings need. */
export interface Reader<T> {
  safeParse(input: unknown): Reading<T>;
}

export type Reading<T> =
  | { readonly success: true; readonly data: T }
  | { readonly success: false; readonly error: { readonly issues: readonly Issue[] } };

export interface Issue {
  readonly code?: string | undefined;
  readonly path: readonly PropertyKey[];
  readonly message: string;
  /** Of the code `unrecognized_keys`. */
  readonly keys?: readonly string[];
  /** Of the code `invalid_key`. */
  readonly issues?: readonly { readonly message: string }[];
}

/** A reader of single values that needs no library. @param refusal what is wrong with an input that `parse` turned down */
export function reader<T>(parse: (input: unknown) => T | undefined, refusal: (input: unknown) => string): Reader<T> {
  return {
    safeParse(input) {
      const data = parse(input);
      if (data !== undefined) return { success: true, data };
      return { success: false, error: { issues: [{ path: [], message: refusal(input) }] } };
    },
  };
}

/** A kind's reader as a part of a zod schema. */
export function within<T>({ any, NEVER }: Zod, { schema }: Pick<Kind<T>, "schema">): z.ZodType<T> {
  return any().transform((input: unknown, context): T => {
    const reading = schema.safeParse(input);
    if (reading.success) return reading.data;
    for (const { message, path } of reading.error.issues) context.addIssue({ code: "custom", message, path: [...path] });
    return NEVER;
  });
}

/** One kind of value. `T` is what the program gets. */
export interface Kind<T> {
  /** How a value is written, for the docs: `10MiB`. */
  readonly example: string;
  /** What a flag's value is called in the help; absent for a flag that takes none. */
  readonly valueName?: string;
  /** Reads what a YAML file holds. */
  readonly schema: Reader<T>;
  /** What a flag (once per use) or a variable says, in the form that `schema` reads. */
  readonly fromTexts: (texts: readonly string[]) => unknown;
  /** What a YAML file would hold; undefined when there is nothing to write. */
  // A method, not a property: so a table can hold settings of every type as Setting<unknown>.
  print(value: T): unknown;
}

export const last = (texts: readonly string[]): unknown => texts.at(-1);
export const items = (texts: readonly string[]): string[] =>
  texts.flatMap((text) => text.split(",")).filter((text) => text !== "");

/** A scalar read by `parse`; YAML numbers are taken as their text. */
export function scalar<T>(
  valueName: string,
  example: string,
  expected: string,
  parse: (text: string) => T | undefined,
  print: (value: T) => unknown,
): Kind<T> {
  const schema = reader(
    (input) => (typeof input === "string" || typeof input === "number" ? parse(String(input)) : undefined),
    (input) => `${quote(input)} is not ${expected}`,
  );
  return { example, valueName, schema, fromTexts: last, print };
}

export const listenAddress: Kind<ListenAddress> = scalar(
  "HOST:PORT",
  "0.0.0.0:8002",
  "HOST:PORT, a port of 65535 at most",
  parseListenAddress,
  printAddress,
);

export const size: Kind<number> = scalar(
  "SIZE",
  "10GiB",
  "a size such as 500MB or 10GiB, at most 8191 TiB",
  parseSize,
  printSize,
);

/** "none", or a rate > 0: a limit of nothing at all would only look like a hang. */
export const rateOrNone: Kind<number | undefined> = noneOr(
  scalar(
    "RATE",
    "10MiB",
    "a rate per second such as 10MiB, larger than 0 (none = no limit)",
    (text) => parseRate(text) || undefined,
    printSize,
  ),
);

export const sizeOrNone: Kind<number | undefined> = noneOr(size);

export const count: Kind<number> = scalar(
  "COUNT",
  "3",
  "a whole number from 0 to 1000",
  (text) => (/^\d{1,4}$/.test(text) && Number(text) <= 1000 ? Number(text) : undefined),
  (value) => value,
);

export const duration: Kind<number> = scalar(
  "DURATION",
  "1s",
  "a duration such as 500ms, 30s or 2h",
  parseDuration,
  printDuration,
);

export const durationOrNone: Kind<number | undefined> = noneOr(
  scalar(
    "DURATION",
    "5m",
    "a duration such as 30s or 2h, longer than 0 (none = no limit)",
    (text) => parseDuration(text) || undefined,
    printDuration,
  ),
);

export const name: Kind<string | undefined> = {
  ...scalar(
    "HOST",
    "10.0.0.7",
    "a host name or address",
    (text) => (isHostName(text) ? text : undefined),
    (value) => value,
  ),
  print: (value) => value,
};

/** What is wrong with a secret is said without repeating it. */
export const secret: Kind<string | undefined> = {
  example: "…",
  valueName: "TOKEN",
  schema: reader(
    (input) => (typeof input === "string" && /^\S{8,1024}$/.test(input) ? input : undefined),
    () => "a secret is one line of 8 to 1024 characters without spaces",
  ),
  fromTexts: last,
  print: (value) => (value === undefined ? undefined : "<secret>"),
};

/** A path; relative ones count from the working directory. Quoted, or in a file, `~` reaches us as no shell has read it: it would become a folder of that name. */
export const path: Kind<string> = scalar(
  "PATH",
  "/var/lib/dragonfly",
  "a path; ~ is for shells, write out what it stands for",
  (text) => (text === "" || text.includes("\0") || text.startsWith("~") ? undefined : isAbsolute(text) ? text : resolve(text)),
  (value) => value,
);

export const optionalPath: Kind<string | undefined> = { ...path, schema: path.schema, print: (value) => value };

const TRUTHS: ReadonlyMap<unknown, boolean> = new Map<unknown, boolean>([
  ...[true, "true", "1", "yes"].map((word) => [word, true] as const),
  ...[false, "false", "0", "no"].map((word) => [word, false] as const),
]);

/** A flag of this kind takes no value. */
export const truth: Kind<boolean> = {
  example: "true",
  schema: reader(
    (input) => TRUTHS.get(input),
    (input) => `${quote(input)} is neither true nor false`,
  ),
  fromTexts: last,
  print: (value) => value,
};

/** One of a few words. */
export function word<const T extends string>(...words: readonly [T, ...T[]]): Kind<T> {
  const expected = `one of ${words.join(", ")}`;
  return scalar(
    "WORD",
    words.join("|"),
    expected,
    (text) => words.find((candidate) => candidate === text),
    (value) => value,
  );
}

export const supernodes: Kind<readonly SupernodeAddress[]> = {
  example: "[10.0.0.1:8002, 10.0.0.2=2]",
  schema: fromZod((z) =>
    z
      .array(within(z, scalar("", "", "HOST[:PORT][=WEIGHT], port 1-65535, weight 1-9999", parseSupernodeAddress, String)), {
        error: (issue) => `${quote(issue.input)} is not a list of supernodes`,
      })
      .min(1, { error: "at least one supernode is needed" }),
  ),
  fromTexts: items,
  print: (value) => value.map(printSupernodeAddress),
  valueName: "HOST[:PORT][=WEIGHT]",
};

export const labels: Kind<HostLabels> = {
  example: "{region: eu, zone: a}",
  schema: fromZod((z) =>
    z.record(
      z
        .string()
        .regex(/^[A-Za-z0-9_.-]{1,64}$/, {
          error: (issue) => `${quote(issue.input)} is not a label name (letters, digits, _ . -)`,
        }),
      z.string({ error: () => `a label needs a text: write NAME=VALUE, in a file NAME: "VALUE"` }).max(256),
      {
        error: (issue) =>
          issue.code === "invalid_type" ? `${quote(issue.input)} is not a mapping of NAME: VALUE` : undefined,
      },
    ),
  ),
  fromTexts: (texts) => Object.fromEntries(items(texts).map(splitAtEquals)),
  print: (value) => (Object.keys(value).length === 0 ? undefined : value),
  valueName: "NAME=VALUE",
};

const REGISTRY_ACCESS = ["passthrough", "own-credentials", "public"] as const satisfies readonly RegistryAccess[];

const registry = (z: Zod) => z.strictObject(
  {
    host: z.string({ error: "host is missing" }).transform((text, context) => {
      if (/^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?$/.test(text)) return text.toLowerCase();
      context.addIssue({
        code: "custom",
        message: `${quote(text)} is not a registry name such as docker.io or reg.example:5000`,
      });
      return z.NEVER;
    }),
    url: z.string({ error: "url is missing: write HOST=URL, in a file host: and url:" }).transform((text, context) => {
      const url = URL.parse(text);
      if (
        url !== null &&
        (url.protocol === "http:" || url.protocol === "https:") &&
        url.search === "" &&
        url.hash === ""
      ) {
        if (url.username === "" && url.password === "") return url.href.replace(/\/+$/, "");
        context.addIssue({ code: "custom", message: "the url must not hold a user name or password" });
        return z.NEVER;
      }
      context.addIssue({
        code: "custom",
        message: `${quote(text)} is not a base URL such as https://registry.example`,
      });
      return z.NEVER;
    }),
    caFile: within(z, optionalPath).optional(),
    access: z
      .enum(REGISTRY_ACCESS, {
        error: (issue) => `${quote(issue.input)} is not one of ${REGISTRY_ACCESS.join(", ")}`,
      })
      .optional(),
    username: z.string({ error: "a username is a text" }).min(1).max(256).optional(),
    passwordFile: within(z, optionalPath).optional(),
  },
  {
    error: (issue) =>
      issue.code === "invalid_type" ? `${quote(issue.input)} is not a mapping with host and url` : undefined,
  },
);

/** A registry, with what is said of it as a server; the files are not read yet. */
export type RegistrySetting = RegistryConfig & Pick<OriginSetting, "caFile"> & Partial<OriginSetting>;

export const registries: Kind<readonly RegistrySetting[]> = {
  example: '[{host: reg.example, url: "http://10.0.0.5:5000"}]',
  schema: fromZod((z) => z
    .array(registry(z), { error: (issue) => `${quote(issue.input)} is not a list of registries` })
    .transform((list, context) => {
      const seen = new Set<string>();
      for (const [index, { host, access, username, passwordFile }] of list.entries()) {
        const wanted = access === "own-credentials";
        if (wanted !== (username !== undefined) || wanted !== (passwordFile !== undefined)) {
          const message = `${quote(host)}: username and passwordFile go with access: own-credentials, and it with both`;
          context.addIssue({ code: "custom", message, path: [index, "access"] });
        }
        if (seen.has(host))
          context.addIssue({ code: "custom", message: `${quote(host)} is given twice`, path: [index, "host"] });
        seen.add(host);
      }
      return list.map(({ host, url, caFile, access = "passthrough", username, passwordFile }) => ({
        host, url, caFile, access, username, passwordFile,
      }));
    })),
  fromTexts: (texts) =>
    items(texts).map((text) => {
      const [host, url] = splitAtEquals(text);
      return { host, url };
    }),
  print: (value) =>
    value.length === 0
      ? undefined
      : value.map(({ access, ...rest }) => ({
          ...Object.fromEntries(Object.entries(rest).filter(([, text]) => text !== undefined)),
          ...(access === "passthrough" ? {} : { access }),
        })),
  valueName: "HOST=URL",
};

const originBudget = (z: Zod) => z.strictObject(
  {
    host: z.string({ error: "host is missing" }).transform((text, context) => {
      const host = budgetHost(text);
      if (host !== undefined) return host;
      const example = isIPv6(text) ? `: write [${text}]` : ", such as reg.example, reg.example:5000, [2001:db8::1], *.example or *";
      context.addIssue({ code: "custom", message: `${quote(text)} is not a host${example}` });
      return z.NEVER;
    }),
    bytesPerSecond: within(z, rateOrNone).optional(),
    requestsPerSecond: within(z, noneOr(
      scalar(
        "N",
        "20",
        "a number of requests per second, larger than 0 (none = no limit)",
        (text) => (/^\d+(\.\d+)?$/.test(text) ? Number(text) || undefined : undefined),
        (value) => value,
      ),
    )).optional(),
  },
  {
    error: (issue) =>
      issue.code === "invalid_type" ? `${quote(issue.input)} is not a mapping with host, bytesPerSecond and requestsPerSecond` : undefined,
  },
);

/** As URLs have it, but with its port also where they leave it out. */
function budgetHost(text: string): string | undefined {
  if (text === "*") return text;
  const [, star = "", name, port] = /^(\*\.(?!\[))?([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?$/.exec(text) ?? [];
  const url = name === undefined ? null : URL.parse(`http://${name}:${port ?? 80}`);
  if (url === null || port !== undefined && Number(port) === 0) return undefined;
  return `${star}${url.hostname}${port === undefined ? "" : `:${Number(port)}`}`;
}

export const originBudgets: Kind<readonly OriginBudgetConfig[]> = {
  example: '[{host: "*.example", bytesPerSecond: 50MiB, requestsPerSecond: 20}]',
  schema: fromZod((z) => z
    .array(originBudget(z), { error: (issue) => `${quote(issue.input)} is not a list of budgets` })
    .transform((list) => list.map(({ host, bytesPerSecond, requestsPerSecond }) => ({ host, bytesPerSecond, requestsPerSecond })))),
  fromTexts: (texts) =>
    items(texts).map((text) => {
      const [host, budget = ""] = splitAtEquals(text);
      const slash = budget.lastIndexOf("/");
      return { host, bytesPerSecond: slash < 0 ? budget : budget.slice(0, slash), requestsPerSecond: slash < 0 ? "none" : budget.slice(slash + 1) };
    }),
  print: (value) =>
    value.length === 0
      ? undefined
      : value.map(({ host, bytesPerSecond, requestsPerSecond }) => ({
          host,
          bytesPerSecond: rateOrNone.print(bytesPerSecond),
          requestsPerSecond: requestsPerSecond ?? "none",
        })),
  valueName: "HOST=RATE/REQUESTS",
};

export function noneOr<T>(kind: Kind<T>): Kind<T | undefined> {
  return {
    ...kind,
    schema: { safeParse: (input) => (input === "none" ? { success: true, data: undefined } : kind.schema.safeParse(input)) },
    print: (value) => (value === undefined ? "none" : kind.print(value)),
  };
}

export function splitAtEquals(text: string): [string, string | undefined] {
  const index = text.indexOf("=");
  return index < 0 ? [text, undefined] : [text.slice(0, index), text.slice(index + 1)];
}

/** A value in a message: short, and quoted so that a space or an empty text shows. */
export function quote(input: unknown): string {
  const text = JSON.stringify(input) ?? String(input);
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}
