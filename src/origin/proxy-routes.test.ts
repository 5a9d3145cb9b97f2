import assert from "node:assert/strict";
import { test } from "node:test";
import { ProxyRoutes } from "./proxy-routes.ts";

function isProxied(url: string, except = ""): boolean {
  const routes = new ProxyRoutes({ httpUrl: "http://plain.test:1", httpsUrl: "http://secure.test:2", except });
  return routes.proxyFor(new URL(url)) !== undefined;
}

test("each scheme has its proxy, and none where none is set", () => {
  const both = new ProxyRoutes({ httpUrl: "http://plain.test:1", httpsUrl: "http://secure.test:2", except: "" });
  assert.equal(both.proxyFor(new URL("http://a.test"))?.host, "plain.test:1");
  assert.equal(both.proxyFor(new URL("https://a.test"))?.host, "secure.test:2");
  const one = new ProxyRoutes({ httpUrl: "http://plain.test:1", httpsUrl: undefined, except: "" });
  assert.equal(one.proxyFor(new URL("https://a.test")), undefined);
});

test("an exception by name means the host and all below it, with *. only those below", () => {
  for (const except of ["reg.test", ".reg.test", "REG.test.", "other.test reg.test", "x,,reg.test"]) {
    assert.equal(isProxied("https://reg.test/v2/", except), false, except);
    assert.equal(isProxied("https://a.reg.test/v2/", except), false, except);
    assert.equal(isProxied("https://myreg.test/v2/", except), true, except);
  }
  assert.equal(isProxied("https://reg.test/", "*.reg.test"), true);
  assert.equal(isProxied("https://a.reg.test/", "*.reg.test"), false);
  assert.equal(isProxied("https://any.test/", "*"), false);
});

test("an exception with a port means that port only, the scheme's own when the URL has none", () => {
  assert.equal(isProxied("https://reg.test:5000/", "reg.test:5000"), false);
  assert.equal(isProxied("https://reg.test/", "reg.test:5000"), true);
  assert.equal(isProxied("https://reg.test/", "reg.test:443"), false);
  assert.equal(isProxied("http://reg.test/", "reg.test:443"), true);
  assert.equal(isProxied("http://[fd00::1]:81/", "[fd00::1]:81"), false);
});

test("an exception by network means the addresses in it", () => {
  assert.equal(isProxied("http://10.1.2.3:5000/", "10.0.0.0/8"), false);
  assert.equal(isProxied("http://11.1.2.3/", "10.0.0.0/8"), true);
  assert.equal(isProxied("http://[fd00::5]/", "fd00::/8"), false);
  assert.equal(isProxied("http://10.0.0.1/", "10.0.0.1"), false);
  // No network, and so a name that nobody has.
  assert.equal(isProxied("http://10.0.0.1/", "10.0.0.0/99"), true);
});

test("this machine is never reached through a proxy", () => {
  for (const host of ["localhost", "a.localhost", "127.0.0.1:5000", "127.9.9.9", "[::1]:80", "LOCALHOST."]) {
    assert.equal(isProxied(`http://${host}/`), false, host);
  }
  assert.equal(isProxied("http://128.0.0.1/"), true);
});
