import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { AppError } from "../base/errors.ts";
import { printConfig, resolveConfig, type FlagTexts, type ResolvedConfig } from "./config.ts";
import { DFDAEMON, DFGET, SUPERNODE, type DFDAEMON_SETTINGS, type Settings } from "./config-schema.ts";
import type { Machine } from "./machine.ts";
import { originNetwork, proxyCredentials, refuseOwnProxy } from "./origin-network.ts";

let directory: string;

before(() => {
  directory = mkdtempSync(join(tmpdir(), "config-"));
});
after(() => rmSync(directory, { recursive: true }));

function machine(env: Readonly<Record<string, string>> = {}): Machine {
  return { env, isRoot: true, home: "/root", canWrite: () => true };
}

function file(text: string, name = "c.yaml"): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
}

function resolve(
  text: string,
  flags: FlagTexts = {},
  env: Readonly<Record<string, string>> = {},
): ResolvedConfig<typeof DFDAEMON_SETTINGS> {
  return resolveConfig(DFDAEMON, { flags, file: file(text) }, machine(env));
}

function problems(text: string, flags: FlagTexts = {}, env: Readonly<Record<string, string>> = {}): readonly string[] {
  try {
    resolve(text, flags, env);
  } catch (thrown) {
    assert.ok(thrown instanceof AppError);
    assert.equal(thrown.code, "CONFIG_INVALID");
    return thrown.message.split("\n").map((line) => line.replaceAll(join(directory, "c.yaml"), "c.yaml"));
  }
  return [];
}

test("nothing said: the defaults of the architecture", () => {
  const { values } = resolveConfig(SUPERNODE, { flags: {}, file: file("# nothing\n") }, machine());
  assert.deepEqual(values.listen, { host: "0.0.0.0", port: 8002 });
  assert.equal(values.dataDir, "/var/lib/dragonfly/supernode");
  assert.equal(values.downloadLimit, undefined);
  const daemon = resolve("").values;
  assert.deepEqual(
    [daemon.listen, daemon.peerListen],
    [
      { host: "127.0.0.1", port: 65001 },
      { host: "0.0.0.0", port: 65002 },
    ],
  );
  assert.deepEqual(daemon.supernodes, [{ host: "127.0.0.1", port: 8002, weight: 1 }]);
  assert.equal(daemon.socket, "/run/dragonfly/dfdaemon.sock");
});

test("who is not root keeps things in his own folders", () => {
  const user: Machine = {
    env: { XDG_RUNTIME_DIR: "/run/user/7" },
    isRoot: false,
    home: "/home/u",
    canWrite: () => false,
  };
  const { values } = resolveConfig(DFDAEMON, { flags: {}, file: file("") }, user);
  assert.equal(values.dataDir, "/home/u/.local/state/dragonfly/dfdaemon");
  assert.equal(values.socket, "/run/user/7/dragonfly/dfdaemon.sock");
  const withState = resolveConfig(SUPERNODE, { flags: {}, file: file("") }, { ...user, env: { XDG_STATE_HOME: "/s" } });
  assert.equal(withState.values.dataDir, "/s/dragonfly/supernode");
});

test("flag before environment before file before default, and zero is a value", () => {
  const text = "uploadLimit: 1M\ndownloadLimit: 1M\noriginLimit: 1M\ncacheQuota: 0\nreservedFree: 0\n";
  const { values, sources } = resolve(
    text,
    { uploadLimit: ["3M"] },
    { DRAGONFLY_UPLOAD_LIMIT: "2M", DRAGONFLY_DOWNLOAD_LIMIT: "2M" },
  );
  assert.deepEqual([values.uploadLimit, values.downloadLimit, values.originLimit], [3 << 20, 2 << 20, 1 << 20]);
  assert.deepEqual([values.cacheQuota, values.reservedFree], [0, 0]);
  assert.equal(sources.uploadLimit, "flag --upload-limit");
  assert.equal(sources.downloadLimit, "env DRAGONFLY_DOWNLOAD_LIMIT");
  assert.match(sources.originLimit, /c\.yaml:3$/);
  assert.equal(sources.listen, "default");
  assert.equal(resolve(text, { uploadLimit: ["none"] }).values.uploadLimit, undefined);
});

test("every problem at once, each with its line", () => {
  const text = `listen: 0.0.0.0:1
downloadLimit: ten
cacheQuota: 99999999999T
uploadLimit: 0
unheardOf: 1
peerlisten: 1.2.3.4:5
labels:
  region: 5
  "bad name": x
registries:
  - host: docker.io
    url: ftp://x
    foo: 1
  - reg.example
supernodes: 10.0.0.1
insecureNoToken: maybe
joinToken: very-secret-token
`;
  const found = problems(text, { logLevel: ["loud"] }, { DRAGONFLY_PEER_LISTEN: "nowhere" });
  const lines = [2, 3, 4, 5, 6, 8, 9, 12, 13, 14, 15, 16, 17].map((line) => `c.yaml:${line}`);
  const places = new Set(found.map((line) => /^[^ ]+?(?=: )/.exec(line)?.[0]));
  assert.deepEqual(places, new Set(["--log-level", "DRAGONFLY_PEER_LISTEN", ...lines]));
  assert.equal(found.length, places.size);
  const all = found.join("\n");
  assert.match(all, /c\.yaml:2: downloadLimit: "ten" is not a rate/);
  assert.match(all, /c\.yaml:5: unknown key "unheardOf" \(known: /);
  assert.match(all, /c\.yaml:6: unknown key "peerlisten"; did you mean "peerListen"\?/);
  assert.match(all, /c\.yaml:13: unknown key "registries\.0\.foo"/);
  assert.match(all, /c\.yaml:17: "joinToken" may not stand in a file/);
  assert.doesNotMatch(all, /very-secret-token/);
});

test("a mistyped variable is refused; one of another program, or of Kubernetes for a service of our name, is not", () => {
  const of = (env: Record<string, string>): readonly string[] => problems("", {}, env);
  assert.deepEqual(of({ DRAGONFLY_SUPERNODES: "10.0.0.1" }), ['DRAGONFLY_SUPERNODES: unknown variable; did you mean "DRAGONFLY_SUPERNODE"?']);
  assert.deepEqual(of({ DRAGONFLY_KEEPERS: "10.0.0.0/8", DRAGONFLY_PORTABLE: "1", DRAGONFLY_SUPERNODES: "" }), []);
  const services = { DRAGONFLY_SERVICE_HOST: "10.0.0.1", DRAGONFLY_SERVICE_PORT: "8002", DRAGONFLY_PORT: "tcp://10.0.0.1:8002", DRAGONFLY_PORT_8002_TCP: "tcp://10.0.0.1:8002", DRAGONFLY_SUPERNODE_SERVICE_HOST: "10.0.0.1", DRAGONFLY_SUPERNODE_PORT: "tcp://10.0.0.1:8002", DRAGONFLY_SUPERNODE_PORT_8002_TCP_PROTO: "tcp" };
  assert.deepEqual(of(services), []);
});

test("a path with a ~ that no shell has read is refused", () => {
  assert.match(problems("dataDir: ~/cache\n").join(), /c\.yaml:1: dataDir: "~\/cache" is not a path; ~ is for shells/);
  assert.deepEqual(problems("dataDir: ./~cache\n"), []);
});

test("a file that is none, or no YAML, is a problem with its place", () => {
  assert.match(problems("listen: [\n").join(), /c\.yaml:\d+: /);
  assert.match(problems("- a\n").join(), /c\.yaml:1: the file must be a mapping/);
  assert.match(problems("listen: a:1\nlisten: b:1\n").join(), /c\.yaml:2: .*unique/);
  const unquoted = problems("tls: false\nproxyIntercept: [*.example, a.test]\n").join("\n");
  assert.match(unquoted, /^c\.yaml:2: \*\.example .* is written in quotes/);
  assert.deepEqual(resolve("proxyIntercept: &a [a.test]\nproxyFiles: []\nlabels: {x: &b eu, y: *b}\n").values.labels, { x: "eu", y: "eu" });
  assert.throws(
    () => resolveConfig(DFGET, { flags: {}, file: join(directory, "absent.yaml") }, machine()),
    /absent\.yaml: cannot be read/,
  );
});

test("lists and mappings come from flags, variables and files alike", () => {
  const flags = {
    supernodes: ["a", "b:1=3,c"],
    labels: ["region=eu", "zone=a=b"],
    registries: ["Reg.example:5000=http://10.0.0.5:5000/"],
  };
  const expected = {
    supernodes: [
      { host: "a", port: 8002, weight: 1 },
      { host: "b", port: 1, weight: 3 },
      { host: "c", port: 8002, weight: 1 },
    ],
    labels: { region: "eu", zone: "a=b" },
    registries: [{ host: "reg.example:5000", url: "http://10.0.0.5:5000", caFile: undefined, access: "passthrough", username: undefined, passwordFile: undefined }],
  };
  const { supernodes, labels, registries } = resolve("supernodes: [z]\n", flags).values;
  assert.deepEqual({ supernodes, labels, registries }, expected);
  const fromEnv = resolve(
    "",
    {},
    {
      DRAGONFLY_SUPERNODE: "a,b:1=3,c",
      DRAGONFLY_LABELS: "region=eu,zone=a=b",
      DRAGONFLY_REGISTRIES: "reg.example:5000=http://10.0.0.5:5000",
    },
  ).values;
  assert.deepEqual(
    { supernodes: fromEnv.supernodes, labels: fromEnv.labels, registries: fromEnv.registries },
    expected,
  );
  assert.match(problems("", { labels: ["region"] }).join(), /--label: a label needs a text/);
  assert.match(problems("", { registries: ["a=http://x", "A=http://y"] }).join(), /"a" is given twice/);
  assert.match(problems("", { registries: ["a=http://u:p@x"] }).join(), /must not hold a user name/);
  assert.match(problems("", { registries: ["a"] }).join(), /url is missing/);
});

test("a registry's credentials are a user and a file, and go with own-credentials only", () => {
  const registry = (more: string): string => `registries:\n  - {host: a, url: "https://a"${more}}\n`;
  const own = resolve(registry(", access: own-credentials, username: robot, passwordFile: /etc/pw")).values.registries;
  assert.deepEqual([own[0]?.username, own[0]?.passwordFile], ["robot", "/etc/pw"]);
  assert.equal(resolve(registry(", access: public")).values.registries[0]?.access, "public");
  for (const more of [", access: own-credentials, username: robot", ", access: own-credentials", ", username: robot, passwordFile: /etc/pw"]) {
    assert.match(problems(registry(more)).join(), /go with access: own-credentials/);
  }
  assert.match(problems(registry(", access: mine")).join(), /"mine" is not one of passthrough, own-credentials, public/);
  assert.match(problems(registry(", password: hunter22")).join(), /unknown key/);
});

test("budgets for origins come from flags and files alike", () => {
  const resolved = (text: string, texts: readonly string[]): unknown =>
    resolveConfig(SUPERNODE, { flags: texts.length === 0 ? {} : { originBudgets: texts }, file: file(text) }, machine()).values.originBudgets;
  const expected = [
    { host: "*.docker.io", bytesPerSecond: 50 * 1024 ** 2, requestsPerSecond: 20 },
    { host: "reg.example:5000", bytesPerSecond: undefined, requestsPerSecond: 0.5 },
    { host: "*", bytesPerSecond: 1_000_000, requestsPerSecond: undefined },
  ];
  assert.deepEqual(resolved("", ["*.Docker.io=50MiB/20", "reg.example:5000=none/0.5,*=1MB/s/none"]), expected);
  const yaml = [
    "originBudgets:",
    '  - { host: "*.docker.io", bytesPerSecond: 50MiB, requestsPerSecond: 20 }',
    "  - { host: reg.example:5000, requestsPerSecond: 0.5 }",
    '  - { host: "*", bytesPerSecond: 1MB, requestsPerSecond: none }',
  ].join("\n");
  assert.deepEqual(resolved(`${yaml}\n`, []), expected);
  for (const wrong of ["a=0/1", "a=1MB/0", "a b=1MB/1", "a=1MB/x", "*.=1MB/1", "a:65536=1MB/1", "a:0=1MB/1", "[::g]=1MB/1", "*.[::1]=1MB/1"]) {
    assert.throws(() => resolved("", [wrong]), { code: "CONFIG_INVALID" }, wrong);
  }
  assert.throws(() => resolved("", ["2001:db8::1=1MB/1"]), /"2001:db8::1" is not a host: write \[2001:db8::1\]/);
  const hosts = (...texts: readonly string[]): unknown => (resolved("", texts) as { readonly host: string }[]).map(({ host }) => host);
  assert.deepEqual(hosts("[2001:DB8:0::1]=1MB/1,[::1]:5000=1MB/1", "reg.example:443=1MB/1"), ["[2001:db8::1]", "[::1]:5000", "reg.example:443"]);
});

test("networks get labels from flags and files alike; what is wrong with one is said with its place", () => {
  const resolved = (text: string, texts: readonly string[] = []): unknown =>
    resolveConfig(SUPERNODE, { flags: texts.length === 0 ? {} : { networkLabels: texts }, file: file(text) }, machine()).values.networkLabels;
  const expected = [
    { network: "10.1.0.0/16", labels: { region: "eu", zone: "a" } },
    { network: "2001:db8::/32", labels: { rack: "r:1" } },
  ];
  assert.deepEqual(resolved("", ["10.1.0.0/16=region:eu/zone:a", "2001:db8::/32=rack:r:1"]), expected);
  assert.deepEqual(resolved("", ["10.1.0.0/16=region:eu/zone:a,2001:db8::/32=rack:r:1"]), expected);
  assert.deepEqual(resolved('networkLabels:\n  - {network: 10.1.0.0/16, labels: {region: eu, zone: a}}\n  - {network: "2001:db8::/32", labels: {rack: "r:1"}}\n'), expected);
  for (const [entries, why] of [
    ["[{network: 10.1.0.0/33, labels: {zone: a}}]", /c\.yaml:1: networkLabels\.0\.network: "10\.1\.0\.0\/33" has no prefix length from 0 to 32/],
    ["[{network: 10.1.2.0/16, labels: {zone: a}}]", /"10\.1\.2\.0\/16" has bits set beyond its first 16/],
    ["[{network: rack-1, labels: {zone: a}}]", /"rack-1" is not a network such as/],
    ["[{network: 10.1.0.0/16, labels: {room: a}}]", /"room" is not one of region, zone, rack, switch/],
    ["[{network: 10.1.0.0/16, labels: {zone: 3}}]", /a label needs a text/],
    ["[{network: 10.1.0.0/16, labels: {zone: ''}}]", /a label's text is empty/],
    ["[{network: 10.1.0.0/16, labels: {}}]", /no label is given/],
    ["[{network: 10.1.0.0/16}]", /is not a mapping of LABEL: VALUE/],
    ["[{labels: {zone: a}}]", /network is missing/],
    ["[{network: 10.1.0.0/16, labels: {zone: a}, note: x}]", /unknown key "networkLabels\.0\.note"/],
    ["[10.1.0.0/16]", /is not a mapping with network and labels/],
    ["10.1.0.0/16", /is not a list of networks with labels/],
    ["\n  - {network: 10.0.0.0/8, labels: {zone: a}}\n  - {network: 10.0.0.0/08, labels: {zone: b}}", /c\.yaml:3: networkLabels\.1\.network: "10\.0\.0\.0\/08" is given twice, the other time as "10\.0\.0\.0\/8"/],
    ["\n  - {network: '2001:db8::/32', labels: {zone: a}}\n  - {network: '2001:DB8:0::/32', labels: {zone: a}}", /is given twice/],
  ] as const) {
    assert.throws(() => resolved(`networkLabels: ${entries}\n`), ({ message }: Error) => why.test(message) || assert.fail(`${entries}: ${message}`));
  }
  assert.throws(() => resolved("", ["10.1.0.0/16"]), /no label is given/);
  assert.throws(() => resolved("", ["10.1.0.0/16=zone"]), /a label needs a text: write NETWORK=LABEL:VALUE/);
});

test("networks of keepers are networks, and a dfdaemon wants to be a keeper only when told", () => {
  const keepers = (...texts: string[]): unknown => resolveConfig(SUPERNODE, { flags: { keepers: texts }, file: file("") }, machine()).values.keepers;
  assert.deepEqual(keepers("10.0.0.5,10.1.0.0/28", "2001:db8::/64"), ["10.0.0.5", "10.1.0.0/28", "2001:db8::/64"]);
  const wrong = { "10.0.0.0/33": /has no prefix length from 0 to 32/, "10.0.0.5/28": /"?10\.0\.0\.5\/28"? has bits set beyond its first 28/, "seed.example": /is not a network such as/ };
  for (const [text, message] of Object.entries(wrong)) assert.throws(() => keepers(text), { code: "CONFIG_INVALID", message }, text);
  assert.deepEqual(keepers("none"), []);
  assert.equal(resolve("").values.keeper, false);
  assert.equal(resolve("keeper: true\n").values.keeper, true);
});

test("systemd's units leave every setting but the token's file to the configuration", () => {
  const elsewhere = "dataDir: /srv/cache\n";
  for (const program of [SUPERNODE, DFDAEMON]) {
    const unit = readFileSync(join(import.meta.dirname, `../../deploy/systemd/${program.name}.service`), "utf8");
    const env = Object.fromEntries([...unit.matchAll(/^Environment=([^=]+)=(.*)$/gm)].map(([, name, value]) => [name, value]));
    const { sources } = resolveConfig<Settings>(program, { flags: {}, file: file(elsewhere) }, machine(env));
    assert.match(sources["dataDir"] ?? "", /c\.yaml:1$/);
    assert.deepEqual(Object.values(sources).filter((source) => source.startsWith("env ")), program === DFDAEMON ? ["env DRAGONFLY_JOIN_TOKEN_FILE"] : []);
    // Without them it is the folders that the unit makes, which its user may write, but not what is above.
    const user = { ...machine(env), isRoot: false, home: "/", canWrite: (path: string) => path === `/var/lib/dragonfly/${program.name}` };
    const { values } = resolveConfig<Settings>(program, { flags: {}, file: file("") }, user);
    assert.equal(values["dataDir"], `/var/lib/dragonfly/${program.name}`);
    if (program === DFDAEMON) assert.equal(values["socket"], "/run/dragonfly/dfdaemon.sock");
  }
});

test("a switch that says no, from a flag and from a variable", () => {
  assert.equal(resolve("", { backToSource: [] }).values.backToSource, false);
  assert.equal(resolve("", {}, { DRAGONFLY_BACK_SOURCE: "false" }).values.backToSource, false);
  assert.equal(resolve("backToSource: false\n").values.backToSource, false);
  assert.equal(resolve("", { insecureNoToken: [] }).values.insecureNoToken, true);
});

test("what is printed names each source, hides secrets, and leads to the same configuration", () => {
  const flags = {
    joinToken: ["very-secret-token"],
    labels: ["region=eu"],
    uploadLimit: ["10MiB"],
    registries: ["a=http://b"],
  };
  const first = resolve("cacheQuota: 5GiB\n", flags);
  const printed = printConfig(DFDAEMON, first);
  assert.doesNotMatch(printed, /very-secret-token/);
  assert.match(printed, /^uploadLimit: 10MiB {2}# flag --upload-limit$/m);
  assert.match(printed, /^cacheQuota: 5GiB {2}# .*c\.yaml:1$/m);
  assert.match(printed, /^logLevel: info {2}# default$/m);
  assert.match(printed, /^# joinToken: <secret>/m);
  const { joinToken: _, ...again } = resolve(printed).values;
  const { joinToken: __, ...before } = first.values;
  assert.deepEqual(again, before);
  const closed = printConfig(DFDAEMON, resolve("", { proxyClients: ["none"] }));
  assert.deepEqual(resolve(closed).values.proxyClients, []);
});

test("what is wrong with a secret is said without it", () => {
  assert.equal(
    problems("", { joinToken: ["abc"] }).join(),
    "--join-token: a secret is one line of 8 to 1024 characters without spaces",
  );
});

test("a proxy comes from our own settings first, then from the variables of others, and its password is never shown", () => {
  const env = { HTTPS_PROXY: "http://me:s3cret-word@proxy.test:3128", https_proxy: "proxy.test:1", no_proxy: "a.test" };
  assert.equal(resolve("", {}, env).values.httpsProxy, "http://proxy.test:1/");
  assert.equal(resolve("", {}, { ...env, DRAGONFLY_HTTPS_PROXY: "none" }).values.httpsProxy, undefined);
  assert.equal(resolve("httpsProxy: https://b.test:2\n", {}, env).values.httpsProxy, "https://b.test:2/");
  assert.equal(resolve("httpsProxy: none\nnoProxy: b.test\n", {}, env).values.httpsProxy, undefined);
  assert.equal(resolve("noProxy: b.test\n", {}, env).values.noProxy, "b.test");
  assert.equal(resolve("", {}, env).values.noProxy, "a.test");
  const printed = printConfig(DFDAEMON, resolve("", {}, { HTTPS_PROXY: env.HTTPS_PROXY }));
  assert.match(printed, /^httpsProxy: http:\/\/<secret>@proxy\.test:3128\/ +# env HTTPS_PROXY$/m);
  assert.doesNotMatch(printed, /s3cret/);
  assert.match(problems(printed).join(), /^c\.yaml:\d+: httpsProxy: a proxy is written/);
  for (const wrong of ["socks5://me:s3cret-word@proxy.test", "http://me:s3cret-word@proxy.test/path", "http://me%s3cret-word@x"]) {
    const found = problems("", {}, { HTTP_PROXY: wrong });
    assert.match(found.join(), /^HTTP_PROXY: a proxy is written/);
    assert.doesNotMatch(found.join(), /s3cret/);
  }
});

test("a server's authority and password are read from their files, and a file that holds none is named", () => {
  const [ca, password, junk] = [file("-----BEGIN CERTIFICATE-----\n", "ca.pem"), file("s3cret\nmore\n", "password"), file("\n", "junk")];
  const server = `url: https://reg.test:5000, caFile: ${ca}`;
  const values = resolve(`origins: [{${server}, username: me, passwordFile: ${password}}]\n`).values;
  const registries = [{ host: "a", url: "https://reg.test:5000/base", caFile: ca }, { host: "b", url: "http://b.test", caFile: undefined }];
  assert.deepEqual(originNetwork(values, registries).servers, [
    {
      origin: "https://reg.test:5000",
      caCertificates: ["-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n"],
      credentials: { username: "me", password: "s3cret" },
    },
  ]);
  const login = (username: string) => ({ host: username, url: "https://reg.test:5000", caFile: undefined, username, passwordFile: password });
  assert.throws(() => originNetwork(values, [login("other")]), /https:\/\/reg\.test:5000 is given two logins/);
  assert.equal(originNetwork(values, [login("me")]).servers[0]?.credentials?.username, "me");
  const wrong = resolve(`origins: [{url: "https://a.test", caFile: ${junk}, username: me, passwordFile: ${junk}}]\n`).values;
  assert.throws(() => originNetwork(wrong), /junk holds no certificate in PEM\n.*junk, which is to be a password, is empty$|password, is empty\n.*no certificate/s);
  assert.match(problems('origins: [{url: "https://me:pw@a.test"}, {url: "https://a.test", username: me}]\n').join(), /without path and user.*go together/);
  assert.match(problems("", { origins: ["https://a.test"] }).join(), /^--origin-ca: nothing is said of the server: write URL=FILE/);
  assert.match(problems('origins: [{url: "https://a.test"}]\n').join(), /^c\.yaml:1: origins\.0: nothing is said of the server/);
});

test("the proxy is for this machine unless the operator lists more, and lists are checked entry by entry", () => {
  assert.deepEqual(resolve("").values.proxyClients, ["127.0.0.0/8", "::1"]);
  assert.deepEqual(resolve("", { proxyClients: ["none"] }).values.proxyClients, []);
  assert.deepEqual(resolve("", { proxyIntercept: ["a.test", "*.b.test:5000"] }).values.proxyIntercept, ["a.test", "*.b.test:5000"]);
  for (const never of ["https://a.test:443/**", "http://a.test:80/x", "https://A.test/**"]) {
    assert.match(problems("", { proxyFiles: [never] }).join(), /^--proxy-files: .*in lower case and without :443/, never);
  }
  assert.deepEqual(problems("", { proxyFiles: ["https://a.test:8443/A", "http://a.test:443/**", "https://*/X/**"] }), []);
  const wrong = "proxyClients: [10.0.0.0/33]\nproxyIntercept: ['https://a.test']\nproxyFiles: ['https://a.test/?x']\n";
  const found = problems(wrong);
  assert.equal(found.length, 3);
  assert.match(found.join("\n"), /c\.yaml:1: proxyClients\.0: .*c\.yaml:2: proxyIntercept\.0: .*c\.yaml:3: proxyFiles\.0: /s);
});

test("a dfdaemon that would be its own proxy does not start, and says where it may come from", () => {
  const own = resolve("", {}, { HTTPS_PROXY: "http://localhost:65001" }).values;
  assert.throws(() => refuseOwnProxy(originNetwork(own), own.listen), /is this dfdaemon itself.*--https-proxy none/s);
  for (const other of ["http://localhost:3128", "http://10.0.0.1:65001"]) {
    const { values } = resolve("", {}, { HTTPS_PROXY: other });
    refuseOwnProxy(originNetwork(values), values.listen);
  }
});

test("the proxy's own user and password are the first line of a file, which is not quoted when it is wrong", () => {
  assert.equal(proxyCredentials(undefined), undefined);
  assert.deepEqual(proxyCredentials(file("me:pa:ss\nmore\n", "user")), { username: "me", password: "pa:ss" });
  assert.throws(() => proxyCredentials(file("s3cret\n", "user")), (error: Error) => /is not user:password/.test(error.message) && !error.message.includes("s3cret"));
});
