/**
 * The one table per program from which everything about its configuration follows: types, validation, defaults,
 * environment, flags, --print-config and docs/config.md.
 */
import { defaultDataDirectory, defaultSocketPath, SYSTEM_STATE, type Machine } from "./machine.ts";
import * as networkKinds from "./network-kinds.ts";
import { networkLabels, networksWithoutHostBits } from "./network-labels-kind.ts";
import * as kinds from "./setting-kinds.ts";
import type { Kind } from "./setting-kinds.ts";

/** One thing that can be set. Its key in the table is its key in the file. */
export interface Setting<T> {
  readonly kind: Kind<T>;
  /** Used when no flag, variable or file says anything. */
  readonly default: (machine: Machine) => T;
  /** The default in words, for the docs, where it depends on the machine or is nothing. */
  readonly defaultText?: string;
  readonly flag: string;
  readonly env: string;
  /** Variables of others that say the same, asked in this order where neither our own nor the file says anything. */
  readonly envOfOthers?: readonly string[];
  readonly doc: string;
  /** SIGHUP puts a new value to work; others wait for a restart. */
  readonly reloads?: true;
  /** May not stand in a file: it would be a secret on disk, or has no meaning there. */
  readonly notInFile?: true;
  /** The flag is a switch that says the contrary: `--no-back-source` sets false. */
  readonly flagMeans?: false;
}

export type Settings = Readonly<Record<string, Setting<unknown>>>;
export type Values<S extends Settings> = { readonly [K in keyof S]: S[K] extends Setting<infer T> ? T : never };

function setting<T>(
  kind: Kind<T>,
  flag: string,
  defaultsTo: T | ((machine: Machine) => T),
  doc: string,
  more: Partial<Setting<T>> = {},
): Setting<T> {
  const env = `DRAGONFLY_${flag
    .replace(/^--(no-)?/, "")
    .replaceAll("-", "_")
    .toUpperCase()}`;
  const byMachine = typeof defaultsTo === "function" ? (defaultsTo as (machine: Machine) => T) : (): T => defaultsTo;
  return { kind, flag, env, default: byMachine, doc, ...more };
}

const LOCAL_SUPERNODE = [{ host: "127.0.0.1", port: 8002, weight: 1 }];

const logLevel = setting(
  kinds.word("trace", "debug", "info", "warn", "error", "silent"),
  "--log-level",
  "info",
  "Least severe log lines to write.",
  { reloads: true },
);

const joinToken = setting(
  kinds.secret,
  "--join-token",
  undefined,
  "The join token itself. Other users of the machine can see flags: prefer the variable or a file.",
  {
    notInFile: true,
    defaultText: "the token file's",
  },
);

const clientTokenFile = setting(
  kinds.optionalPath,
  "--join-token-file",
  undefined,
  "File whose first line is the join token.",
  {
    defaultText: `\`join-token\` in the supernode's data folder when it is on this machine`,
  },
);

const supernodes = setting(
  kinds.supernodes,
  "--supernode",
  LOCAL_SUPERNODE,
  "Supernodes, `HOST[:PORT][=WEIGHT]`, tried by falling weight (1), then in this order; the flag may be repeated.",
  {
    env: "DRAGONFLY_SUPERNODE",
  },
);

const labels = setting(
  kinds.labels,
  "--label",
  {},
  "Where this host stands (`region=eu`, `zone=a`, `rack=…`, `switch=…`): pieces come from near, and once from far; the flag may be repeated.",
  {
    env: "DRAGONFLY_LABELS",
    defaultText: "none",
  },
);

const insecureNoToken = setting(
  kinds.truth,
  "--insecure-no-token",
  false,
  "Run without a join token although others than this machine can reach the listener: anybody may then join and read.",
);

/** The same for all programs of a site. */
export const TLS_SETTINGS = {
  tls: setting(
    kinds.truth,
    "--tls",
    false,
    "TLS between the programs of the site (control, links, pieces, REST), with keys that follow from the join token. All of a site's programs, or none.",
  ),
  tlsCa: setting(kinds.optionalPath, "--tls-ca", undefined, "With `tls`, instead of the join token's keys: PEM file of the authorities that sign this site's certificates and no others. Read again when it changes, as the next two.", {
    defaultText: "none",
  }),
  tlsCert: setting(kinds.optionalPath, "--tls-cert", undefined, "This host's certificate and its chain, for servers and clients; a supernode's names the host that `supernodes` says.", {
    defaultText: "none",
  }),
  tlsKey: setting(kinds.optionalPath, "--tls-key", undefined, "Its private key.", { defaultText: "none" }),
};

const limits = {
  downloadLimit: setting(
    kinds.rateOrNone,
    "--download-limit",
    undefined,
    "Most bytes per second taken in from other peers, host-wide, over all tasks.",
    { reloads: true, defaultText: "none" },
  ),
  uploadLimit: setting(
    kinds.rateOrNone,
    "--upload-limit",
    undefined,
    "Most bytes per second given to other peers, host-wide, over all tasks.",
    { reloads: true, defaultText: "none" },
  ),
  originLimit: setting(
    kinds.rateOrNone,
    "--origin-limit",
    undefined,
    "Most bytes per second read from origins, host-wide, over all tasks.",
    { reloads: true, defaultText: "none" },
  ),
};

const cache = {
  cacheQuota: setting(
    kinds.sizeOrNone,
    "--cache-quota",
    undefined,
    "Most bytes of cached pieces; what is asked for least goes first. 0 keeps nothing that nobody reads.",
    { defaultText: "none" },
  ),
  reservedFree: setting(kinds.size, "--reserved-free", 1024 ** 3, "Free space to leave on the cache's file system."),
  scrubRate: setting(
    kinds.size,
    "--scrub-rate",
    8 * 1024 ** 2,
    "Bytes per second of the cache that are read back while the disk has nothing else to do, to find damage; 0 = never.",
  ),
};

const network = {
  origins: setting(
    networkKinds.origins,
    "--origin-ca",
    [],
    "Servers that files come from, `https://host[:port]`, whose certificate is of an authority of your own: its PEM file. " +
      "In a file also `username` and `passwordFile` (its first line), with which this program logs in for callers that bring no credentials.",
    { env: "DRAGONFLY_ORIGIN_CA", defaultText: "none" },
  ),
  httpProxy: setting(networkKinds.proxyOrNone, "--http-proxy", undefined, "Proxy on the way to `http:` origins.", {
    envOfOthers: ["http_proxy", "HTTP_PROXY"],
    defaultText: "none",
  }),
  httpsProxy: setting(networkKinds.proxyOrNone, "--https-proxy", undefined, "Proxy on the way to `https:` origins.", {
    envOfOthers: ["https_proxy", "HTTPS_PROXY"],
    defaultText: "none",
  }),
  noProxy: setting(
    networkKinds.hostExceptions,
    "--noproxy",
    "",
    "Origins that are reached without a proxy: `example.org` (and below), `*.example.org`, `10.0.0.0/8`, `host:port`, `*`. This machine always is.",
    { env: "DRAGONFLY_NO_PROXY", envOfOthers: ["no_proxy", "NO_PROXY"], defaultText: "none" },
  ),
};

const advertise = setting(kinds.name, "--advertise", undefined, "The host name or address that other hosts dial.", {
  defaultText: "the address the supernode sees",
});

const grantLife = setting(
  kinds.duration,
  "--grant-life",
  5 * 60_000,
  "How long a registry's or server's word holds that a caller may read something: rights that are taken away end within it.",
);

const outageGrant = setting(
  kinds.duration,
  "--outage-grant",
  0,
  "How much longer that word holds while the registry or server cannot be asked.",
);

export const SUPERNODE_SETTINGS = {
  listen: setting(
    kinds.listenAddress,
    "--listen",
    { host: "0.0.0.0", port: 8002 },
    "Control, links, pieces, REST and metrics, on one port.",
  ),
  advertise: { ...advertise, defaultText: "the address each peer reached it by" },
  dataDir: setting(
    kinds.path,
    "--data-dir",
    (machine) => defaultDataDirectory(machine, "supernode"),
    "Cache, state and join token.",
    {
      defaultText: `\`${SYSTEM_STATE}/supernode\`, else \`$XDG_STATE_HOME/dragonfly/supernode\`, else \`~/.local/state/dragonfly/supernode\``,
    },
  ),
  joinToken,
  joinTokenFile: {
    ...clientTokenFile,
    doc: "File whose first line is the join token; made with a new token (mode 0600, shown once) when it is not there.",
    defaultText: "`join-token` in the data folder",
  },
  ...TLS_SETTINGS,
  insecureNoToken: { ...insecureNoToken, doc: "Let anybody join: no token is asked for." },
  ...network,
  origins: {
    ...network.origins,
    doc: `${network.origins.doc} Whoever has the join token may then read what these credentials may.`,
  },
  grantLife,
  outageGrant,
  ...limits,
  originBudgets: setting(
    kinds.originBudgets,
    "--origin-budget",
    [],
    "What the whole site may burden an origin's host with, `HOST=RATE/REQUESTS`, either `none`; HOST may have a port (80 and 443 are one), be `[2001:db8::1]`, `*.example` or `*`, the first that matches counts, each host for itself; the flag may be repeated.",
    { env: "DRAGONFLY_ORIGIN_BUDGETS", reloads: true, defaultText: "none" },
  ),
  ...cache,
  revalidateInterval: setting(
    kinds.duration,
    "--revalidate-interval",
    1_000,
    "Ask an origin about a file at most once in this time, however many want it; 0s asks for each download. Content known by SHA-256 or SHA-512 is never asked about.",
    { reloads: true },
  ),
  serveStale: setting(
    kinds.durationOrNone,
    "--serve-stale",
    undefined,
    "While an origin cannot be asked, give out a file that it confirmed at most this long ago, to those to whom it said so, with its age.",
    { reloads: true, defaultText: "none: the download fails" },
  ),
  leasePeers: setting(
    kinds.count,
    "--lease-peers",
    3,
    "Most peers that read one file from its origin at a time when this supernode's disk cannot take it (only content known by SHA-256 or SHA-512); 0 = none, then each reads for itself.",
  ),
  leaseBelow: setting(
    kinds.rateOrNone,
    "--lease-below",
    undefined,
    "They read, too, where this supernode's own read brings less than this for ten seconds, and its own limits are not why.",
    { defaultText: "none" },
  ),
  serveStaleTags: setting(
    kinds.durationOrNone,
    "--serve-stale-tags",
    24 * 60 * 60_000,
    "The same for images' manifests by tag; none = never.",
    { reloads: true },
  ),
  labels: { ...labels, doc: "Where this supernode stands (`region=eu`, `zone=a`, `rack=…`, `switch=…`); the flag may be repeated." },
  networkLabels: setting(
    networkLabels,
    "--network-labels",
    [],
    "Where the hosts of a network stand, for those that do not say it themselves: `NETWORK=LABEL:VALUE/LABEL:VALUE`, by the address that the supernode sees; each label from the longest network that has it; the flag may be repeated.",
    { reloads: true, defaultText: "none" },
  ),
  keepers: setting(
    networksWithoutHostBits,
    "--keepers",
    [],
    "Networks of hosts whose dfdaemons, with `keeper` set, are further seeds: they take whatever others take, **private files included**, and give it on.",
    { defaultText: "none" },
  ),
  logLevel,
};

export const DFDAEMON_SETTINGS = {
  listen: setting(
    kinds.listenAddress,
    "--listen",
    { host: "127.0.0.1", port: 65001 },
    "Registry mirror and proxy for engines; health and metrics.",
  ),
  proxyClients: setting(
    networkKinds.networks,
    "--proxy-clients",
    ["127.0.0.0/8", "::1"],
    "Clients that may use the proxy, by address or network; `none`, in a file `[]`, turns it off. Who is not on this machine reaches nothing on it or its link.",
  ),
  proxyUserFile: setting(
    kinds.optionalPath,
    "--proxy-user-file",
    undefined,
    "File whose first line, `user:password`, every client of the proxy has to log in with.",
    { defaultText: "none" },
  ),
  proxyIntercept: setting(
    networkKinds.hostPatterns,
    "--proxy-intercept",
    [],
    "Hosts whose TLS the proxy ends, to see what is asked of them: `reg.example`, `reg.example:5000`, `*.example`; all others are tunnels. " +
      "Clients have to trust `proxy-ca/ca.pem` of the data folder.",
    { defaultText: "none" },
  ),
  proxyFiles: setting(
    networkKinds.urlGlobs,
    "--proxy-files",
    [],
    "Files that go through the swarm when asked of the proxy, by URL without query: `https://files.example/**`; those of https on hosts of `proxyIntercept` only.",
    { defaultText: "none" },
  ),
  peerListen: setting(
    kinds.listenAddress,
    "--peer-listen",
    { host: "0.0.0.0", port: 65002 },
    "Links and pieces for other hosts.",
  ),
  advertise,
  socket: setting(kinds.path, "--socket", defaultSocketPath, "Unix socket of the local API, for dfget.", {
    defaultText: "`/run/dragonfly/dfdaemon.sock`, else `$XDG_RUNTIME_DIR/dragonfly/dfdaemon.sock`",
  }),
  dataDir: setting(
    kinds.path,
    "--data-dir",
    (machine) => defaultDataDirectory(machine, "dfdaemon"),
    "Cache and state.",
    {
      defaultText: `\`${SYSTEM_STATE}/dfdaemon\`, else \`$XDG_STATE_HOME/dragonfly/dfdaemon\`, else \`~/.local/state/dragonfly/dfdaemon\``,
    },
  ),
  supernodes,
  joinToken,
  joinTokenFile: clientTokenFile,
  insecureNoToken,
  ...TLS_SETTINGS,
  registries: setting(
    kinds.registries,
    "--registry",
    [],
    "Upstream base URL of a registry, `HOST=URL`, where it is not `https://HOST`; the flag may be repeated. In a file also `caFile`; `access`: `passthrough` (each caller's own credentials), `own-credentials` (those of `username` and `passwordFile`: **whoever reaches the mirror may read what they open**), `public` (none).",
    {
      env: "DRAGONFLY_REGISTRIES",
      defaultText: "none",
    },
  ),
  grantLife,
  outageGrant,
  tagLife: setting(
    kinds.duration,
    "--tag-life",
    0,
    "How long a tag is taken to mean what it meant, for callers whose grant holds; 0: the registry is asked each time.",
  ),
  staleTagLife: setting(
    kinds.duration,
    "--stale-tag-life",
    60 * 60_000,
    "The same while the registry cannot be asked; 0: never.",
  ),
  backToSource: setting(
    kinds.truth,
    "--no-back-source",
    true,
    "Read the origin from this host when the swarm cannot deliver.",
    { flagMeans: false },
  ),
  ...network,
  ...limits,
  ...cache,
  labels,
  keeper: setting(
    kinds.truth,
    "--keeper",
    false,
    "Be a further seed: take whatever others of the site take, as far as `cacheQuota` and the disk go, and give it on. The supernode's `keepers` has to have this host's address.",
  ),
  logLevel,
};

export const DFGET_SETTINGS = {
  socket: setting(kinds.optionalPath, "--socket", undefined, "Unix socket of this host's dfdaemon.", {
    defaultText: "`/run/dragonfly/dfdaemon.sock`, then `$XDG_RUNTIME_DIR/dragonfly/dfdaemon.sock`",
  }),
  supernodes,
  joinToken,
  joinTokenFile: clientTokenFile,
  ...TLS_SETTINGS,
  backToSource: setting(
    kinds.truth,
    "--no-back-source",
    true,
    "Read the origin from this host when the swarm cannot deliver.",
    { flagMeans: false },
  ),
  ...network,
  limitRate: setting(kinds.rateOrNone, "--limit-rate", undefined, "Most bytes per second for this download, also what this host takes in for it.", {
    defaultText: "none",
  }),
  timeout: setting(
    kinds.durationOrNone,
    "--timeout",
    undefined,
    "Longest time the whole download may take; a bare number is seconds.",
    { defaultText: "none" },
  ),
  progress: setting(
    kinds.word("auto", "bar", "plain", "none"),
    "--progress",
    "auto",
    "How progress shows on stderr; auto is a bar on a terminal, plain lines elsewhere.",
  ),
  advertise,
  labels,
};

/** A program's name, its table, and the file it reads unless told otherwise. */
export interface Program<S extends Settings> {
  readonly name: "supernode" | "dfdaemon" | "dfget";
  readonly summary: string;
  readonly settings: S;
  readonly defaultFile: string;
}

export const SUPERNODE: Program<typeof SUPERNODE_SETTINGS> = {
  name: "supernode",
  summary: "reads each file from its origin once, and brings peers together",
  settings: SUPERNODE_SETTINGS,
  defaultFile: "/etc/dragonfly/supernode.yaml",
};

export const DFDAEMON: Program<typeof DFDAEMON_SETTINGS> = {
  name: "dfdaemon",
  summary: "is this host's peer: registry mirror for container engines, local API for dfget",
  settings: DFDAEMON_SETTINGS,
  defaultFile: "/etc/dragonfly/dfdaemon.yaml",
};

export const DFGET: Program<typeof DFGET_SETTINGS> = {
  name: "dfget",
  summary: "downloads one file through this host's dfdaemon, as a peer of its own, or from the origin",
  settings: DFGET_SETTINGS,
  defaultFile: "/etc/dragonfly/dfget.yaml",
};

export const VARIABLE_PREFIX = "DRAGONFLY_";
/** Of all programs: one file of variables may serve them all. The last two are no settings: see docs/config.md, and libc.ts. */
export const VARIABLES: ReadonlySet<string> = new Set([
  ...[SUPERNODE, DFDAEMON, DFGET].flatMap(({ settings }) => Object.values<Setting<unknown>>(settings).map(({ env }) => env)),
  "DRAGONFLY_CONFIG",
  "DRAGONFLY_PORTABLE",
]);
