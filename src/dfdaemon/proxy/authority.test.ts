import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:https";
import { isIP, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { connect, TLSSocket } from "node:tls";
import { Authority } from "./authority.ts";

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "dragonfly-ca-"));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** Shakes hands with a server that shows what `authority` has for `host`. @returns the server's certificate */
async function handshake(t: TestContext, authority: Authority, host: string): Promise<X509Certificate> {
  const server = createServer();
  server.removeAllListeners("connection");
  server.on("connection", (socket) => {
    const secured = new TLSSocket(socket, { isServer: true, secureContext: authority.contextFor(host) });
    secured.on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const options = isIP(host) === 0 ? { servername: host } : { checkServerIdentity: () => undefined };
  const client = connect({ host: "127.0.0.1", port, ca: [authority.certificatePem], ...options });
  t.after(() => client.destroy());
  await new Promise<void>((resolve, reject) => client.once("secureConnect", resolve).once("error", reject));
  return new X509Certificate(client.getPeerX509Certificate()?.raw ?? "");
}

test("an authority is made once, its key for nobody else to read, and kept", (t) => {
  const path = directory(t);
  const first = new Authority(join(path, "ca"));
  assert.equal(statSync(join(path, "ca/ca-key.pem")).mode & 0o777, 0o600);
  assert.equal(statSync(join(path, "ca")).mode & 0o777, 0o700);
  const again = new Authority(join(path, "ca"));
  assert.equal(again.certificatePem, first.certificatePem);
  assert.equal(again.certificateFile, join(path, "ca/ca.pem"));
  const certificate = new X509Certificate(first.certificatePem);
  assert.equal(certificate.ca, true);
  assert.ok(certificate.verify(certificate.publicKey));
  assert.notEqual(new Authority(join(path, "other")).certificatePem, first.certificatePem);
});

test("a host's certificate is believed by who trusts the authority, for that host alone", async (t) => {
  const authority = new Authority(directory(t));
  const certificate = await handshake(t, authority, "reg.test");
  assert.equal(certificate.checkHost("reg.test"), "reg.test");
  assert.equal(certificate.checkHost("other.test"), undefined);
  assert.equal(certificate.ca, false);
  assert.deepEqual(certificate.keyUsage, ["1.3.6.1.5.5.7.3.1"]);
  const v4 = await handshake(t, authority, "10.1.2.3");
  assert.equal(v4.checkIP("10.1.2.3"), "10.1.2.3");
  assert.match((await handshake(t, authority, "fd00::7")).subjectAltName ?? "", /^IP Address:FD00:0:0:0:0:0:0:7$/);
  const long = `${"a".repeat(60)}.${"b".repeat(60)}.test`;
  assert.equal((await handshake(t, authority, long)).checkHost(long), long);
});

test("openssl, strict, believes them too", async (t) => {
  const path = directory(t);
  const authority = new Authority(path);
  const certificate = await handshake(t, authority, "reg.test");
  const file = join(path, "leaf.pem");
  writeFileSync(file, certificate.toString());
  const verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "reg.test", "-CAfile", authority.certificateFile, file];
  try {
    execFileSync("openssl", ["version"]);
  } catch {
    return t.skip("needs the command openssl");
  }
  assert.match(execFileSync("openssl", verify).toString(), /: OK$/m);
});

test("an authority of the operator's own serves as well, whatever its name and its key's identifier", async (t) => {
  const path = directory(t);
  const files = ["-keyout", join(path, "ca-key.pem"), "-out", join(path, "ca.pem")];
  const options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /C=CH/O=Own/CN=Own".split(" ");
  try {
    execFileSync("openssl", [...options, ...files], { stdio: "ignore" });
  } catch {
    return t.skip("needs the command openssl");
  }
  const certificate = await handshake(t, new Authority(path), "reg.test");
  assert.equal(certificate.issuer, "C=CH\nO=Own\nCN=Own");
  writeFileSync(join(path, "leaf.pem"), certificate.toString());
  const verify = ["verify", "-verify_hostname", "reg.test", "-CAfile", join(path, "ca.pem"), join(path, "leaf.pem")];
  assert.match(execFileSync("openssl", verify).toString(), /: OK$/m);
});

test("a host's certificate is made once, anew at half of its life, and the least recently used is forgotten", (t) => {
  let nowMs = Date.now();
  const authority = new Authority(directory(t), () => nowMs);
  const first = authority.contextFor("a.test");
  assert.equal(authority.contextFor("a.test"), first);
  nowMs += 16 * 24 * 60 * 60_000;
  const second = authority.contextFor("a.test");
  assert.notEqual(second, first);
  for (let index = 0; index < 255; index++) authority.contextFor(`h${index}.test`);
  assert.equal(authority.contextFor("a.test"), second);
  for (let index = 0; index < 256; index++) authority.contextFor(`i${index}.test`);
  assert.equal(authority.hostCount, 256);
  assert.notEqual(authority.contextFor("a.test"), second);
});

test("what lies there and does not fit together is refused with what to do", (t) => {
  const [one, two] = [directory(t), directory(t)];
  const authority = new Authority(one);
  new Authority(two);
  writeFileSync(join(two, "ca.pem"), authority.certificatePem);
  assert.throws(() => new Authority(two), { code: "CONFIG_INVALID", message: /is not of the key .* move both away/ });
  writeFileSync(join(two, "ca-key.pem"), "junk");
  assert.throws(() => new Authority(two), { code: "CONFIG_INVALID", message: /holds no private key/ });
  writeFileSync(join(one, "ca.pem"), "junk");
  assert.throws(() => new Authority(one), { code: "CONFIG_INVALID", message: /holds no certificate/ });
  writeFileSync(join(one, "ca.pem"), authority.certificatePem);
  const later = Date.now() + 11 * 365 * 24 * 60 * 60_000;
  assert.throws(() => new Authority(one, () => later), { code: "CONFIG_INVALID", message: /ended on/ });
  assert.doesNotMatch(readFileSync(join(one, "ca.pem"), "utf8"), /PRIVATE/);
});
