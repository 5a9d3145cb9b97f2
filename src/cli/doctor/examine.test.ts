/** `dfdaemon doctor` as a shell meets it: what it asks and what it leaves out. On a whole site: test/e2e/doctor.test.ts. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { packageVersion } from "../package-version.ts";
import { resolveConfig } from "../config.ts";
import { DFDAEMON as PROGRAM } from "../config-schema.ts";
import { thisMachine } from "../machine.ts";
import { tokenOf } from "./examine.ts";
import type { Finding } from "./finding.ts";

const DFDAEMON = join(import.meta.dirname, "../../../bin/dfdaemon");
const directory = mkdtempSync(join(tmpdir(), "doctor-shell-"));
const servers: ReturnType<typeof createServer>[] = [];
after(() => {
  for (const server of servers) server.close();
  rmSync(directory, { recursive: true });
});

async function http(answer: RequestListener): Promise<string> {
  const server = createServer((request, response) => {
    response.setHeader("connection", "close");
    answer(request, response);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** The findings between this host's dfdaemon and the supernode, `link: status, message`; its engines are not looked at. */
async function doctor(flags: Readonly<Record<string, string>>, { switches = [], ...user }: { readonly switches?: readonly string[]; readonly uid?: number; readonly gid?: number } = {}): Promise<{ readonly code: number; readonly found: Readonly<Record<string, string>> }> {
  const given = { "--data-dir": directory, "--socket": join(directory, "none.sock"), "--reserved-free": "0", ...flags };
  const argv = ["doctor", "--json", "--engine", "cri-o", ...switches, ...Object.entries(given).flat()];
  const env = { PATH: process.env["PATH"] ?? "", HOME: directory };
  return await new Promise((resolve, reject) => {
    execFile(DFDAEMON, argv, { env, ...user }, (error, stdout, stderr) => {
      if (stdout === "") return reject(new Error(stderr));
      const { findings } = JSON.parse(stdout) as { readonly findings: readonly Finding[] };
      const site = findings.filter(({ link }) => !link.startsWith("cri-o "));
      resolve({ code: Number(error?.code ?? 0), found: Object.fromEntries(site.map(({ link, status, message }) => [link, `${status}, ${message}`])) });
    });
  });
}

const CLOSED = "127.0.0.1:1";

test("what cannot be asked is said to be left out, and the exit code is 1", async () => {
  const { code, found } = await doctor({ "--listen": CLOSED, "--supernode": CLOSED, "--join-token": "a-token-0123456789" });
  assert.equal(code, 1);
  assert.match(found["dfdaemon"] ?? "", /^broken, dfdaemon is not running/);
  for (const link of ["socket", "registration", "swarm"]) assert.equal(found[link], "skipped, dfdaemon was not there to ask");
  assert.match(found["supernode"] ?? "", /^broken, the supernode 127\.0\.0\.1:1 cannot be reached/);
  for (const link of ["clock", "token"]) assert.match(found[link] ?? "", /^skipped, /);
});

test("who is not root is told that he may not see all there is", { skip: process.getuid?.() !== 0 && "root only" }, async () => {
  const flags = { "--listen": CLOSED, "--supernode": CLOSED, "--join-token": "a-token-0123456789" };
  assert.match((await doctor(flags, { uid: 1234, gid: 1234 })).found["user"] ?? "", /^skipped, not run as root/);
  assert.equal((await doctor(flags)).found["user"], undefined);
});

test("a dfdaemon that is well but registered nowhere is not asked for the test image while no supernode is there", async () => {
  const version = packageVersion();
  const asked: string[] = [];
  const listen = await http(({ url = "" }, response) => {
    asked.push(url);
    if (url === "/version") response.end(JSON.stringify({ version }));
    else response.writeHead(503).end();
  });
  const { found } = await doctor({ "--listen": listen, "--supernode": CLOSED, "--join-token": "a-token-0123456789" });
  assert.equal(found["dfdaemon"], `ok, dfdaemon ${version} listens on ${listen}`);
  assert.match(found["registration"] ?? "", /^broken, /);
  assert.equal(found["swarm"], "skipped, there is no supernode to join");
  assert.deepEqual(asked.toSorted(), ["/readyz", "/version"]);
});

test("of a supernode that cannot be reached, though dfdaemon is registered at one, it is said that the doctor may lack dfdaemon's flags", async () => {
  const version = packageVersion();
  const answers: Readonly<Record<string, string>> = { "/version": JSON.stringify({ version }), "/readyz": "ok" };
  const listen = await http(({ url = "" }, response) => void response.writeHead(url in answers ? 200 : 404).end(answers[url]));
  const { found } = await doctor({ "--listen": listen, "--supernode": CLOSED, "--join-token": "a-token-0123456789" });
  assert.match(found["registration"] ?? "", /^ok, /);
  assert.match(found["supernode"] ?? "", /^broken, .*cannot be reached.*; dfdaemon itself is registered at a supernode: if flags told it which, give the doctor the same \(--supernode, --join-token-file\)$/);
});

test("a token or a certificate that cannot be had is its own link's matter", async () => {
  const supernode = await http((_request, response) => response.end('{"status":"ready"}'));
  const flags = { "--listen": CLOSED, "--supernode": supernode };
  const unread = await doctor({ ...flags, "--join-token-file": join(directory, "no-token") });
  assert.match(unread.found["token"] ?? "", /^broken, .*no-token.*; give --join-token-file FILE or DRAGONFLY_JOIN_TOKEN$/);
  assert.match(unread.found["supernode"] ?? "", /^ok, /);
  // Nothing but a web server: the token is not even asked for.
  const without = await doctor({ ...flags, "--join-token-file": join(directory, "no-token") }, { switches: ["--insecure-no-token"] });
  assert.match(without.found["token"] ?? "", /^broken, (?!.*no-token).*; check what listens there, and that both are of one version$/);
  const settings = { joinToken: ["a-token-0123456789"], insecureNoToken: [] };
  const resolved = resolveConfig(PROGRAM, { flags: settings, file: "/dev/null" }, { ...thisMachine(), env: {} });
  assert.deepEqual(tokenOf(resolved, thisMachine()), { value: "a-token-0123456789" }, "as dfdaemon itself has it");
  const missing = join(directory, "none.pem");
  const encrypted = await doctor({ ...flags, "--join-token": "a-token-0123456789-0123456789-01", "--tls-ca": missing, "--tls-cert": missing, "--tls-key": missing }, { switches: ["--tls"] });
  assert.match(encrypted.found["supernode"] ?? "", /^broken, this host's TLS cannot be used: .*none\.pem/);
});
