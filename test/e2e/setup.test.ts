/** `dfdaemon setup` and `doctor` on a host with containerd, Docker and Podman's library, each where its package has it. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { Cluster } from "./lib/cluster.ts";
import { Supernode } from "./lib/dragonfly.ts";
import { pushImage } from "./lib/image.ts";
import { Machine } from "./lib/machine.ts";
import { Lab, type Service, waitFor } from "./lib/processes.ts";
import { Registry } from "./lib/registry.ts";

const ENGINES = ["containerd", "docker", "podman"];
const ENGINE_FILES = ["/etc/containerd", "/etc/containers", "/etc/docker"];
/** As an administrator left it: dockerd needs these on a host without iptables. */
const DAEMON_JSON = '{\n    "bridge": "none",\n    "iptables": false,\n    "ip-forward": false\n}\n';
const CONTAINERD_TOML = [
  "version = 2",
  "# kept as it is",
  '[plugins."io.containerd.grpc.v1.cri"]',
  "  restrict_oom_score_adj = true",
  "  disable_apparmor = true",
  "",
].join("\n");

void test("three engines are set up, pull by original names through dfdaemon, are found well, and put back byte for byte", async (t) => {
  const lab = new Lab("setup");
  await lab.use(async () => {
    const cluster = new Cluster(lab);
    const registry = await Registry.start(lab, cluster.address, 5000);
    const { repository, tag } = await pushImage(lab, registry.backUrl, { repository: "team/app", tag: "v1", layerBytes: [3 << 20, 100_000] });
    const supernode = await Supernode.start(lab, cluster.address);
    const machine = await Machine.start(lab, cluster.addHost());
    await machine.sh(`
      mkdir -p /etc/dragonfly /etc/docker /etc/containerd
      cat >/etc/dragonfly/dfdaemon.yaml <<'END'
supernodes: ["${supernode.listen}"]
joinTokenFile: ${supernode.tokenFile}
registries:
  - { host: reg.test, url: "${registry.url}" }
  - { host: docker.io, url: "${registry.url}" }
END
      printf '%s' '${DAEMON_JSON}' >/etc/docker/daemon.json; chmod 640 /etc/docker/daemon.json
      printf '%s' '${CONTAINERD_TOML}' >/etc/containerd/real.toml; chown 1234:1234 /etc/containerd/real.toml
      ln -sf real.toml /etc/containerd/config.toml`);
    const engines = await startEngines(machine);
    const before = await machine.listing(...ENGINE_FILES);

    const dry = await machine.bin("dfdaemon", "setup", "--dry-run");
    assert.equal(dry.code, 0, dry.stderr);
    assert.equal(await machine.listing(...ENGINE_FILES), before, "a dry run wrote");
    const patch = lab.writeFile("setup.patch", dry.stdout.slice(dry.stdout.indexOf("--- ")));
    const patched = lab.makeDir("patched");
    await machine.sh(`cp -rL --parents ${ENGINE_FILES.join(" ")} ${patched}; cd ${patched}; git apply ${patch}`);

    const daemon = machine.startBin("dfdaemon");
    await waitFor("dfdaemon is ready", async () => (await machine.run(["curl", "-sf", "http://127.0.0.1:65001/readyz"])).code === 0, { services: [daemon] });

    const setup = await machine.bin("dfdaemon", "setup");
    assert.equal(setup.code, 0, setup.stdout + setup.stderr);
    assert.match(setup.stdout, /containerd:[^]*then: systemctl restart containerd\ndocker:[^]*then: systemctl reload docker\npodman:/);
    const asPatched = await machine.run(["diff", "-r", "-x", "real.toml", "/etc/containerd", `${patched}/etc/containerd`]);
    assert.equal(asPatched.stdout, "", "the diff says something else than what is done");
    assert.match((await machine.bin("dfdaemon", "setup")).stdout, /^containerd: nothing to do\ndocker:\n {2}note: /);
    assert.match(await machine.sh("containerd config dump"), /config_path = "\/etc\/containerd\/certs\.d"/);

    const early = await machine.bin("dfdaemon", "doctor");
    assert.equal(early.code, 1);
    assert.match(early.stdout, /BROKEN +containerd configuration +containerd \(pid \d+\) has run since before .*config\.toml was changed.*systemctl restart containerd/);
    assert.match(early.stdout, /BROKEN +docker configuration +dockerd has not read its daemon\.json; run: systemctl reload docker/);

    await engines.containerd.stop();
    engines.docker.signal("SIGHUP");
    engines.containerd = await startContainerd(machine);
    await waitFor("dockerd has reloaded", async () => (await machine.run(["docker", "info"])).stdout.includes("65001"), { services: [engines.docker] });

    const image = `${repository}:${tag}`;
    const well = await machine.bin("dfdaemon", "doctor", "--engine", "containerd", "--engine", "podman", "--image", `reg.test/${image}`);
    assert.equal(well.code, 0, well.stdout + well.stderr);
    t.diagnostic(`\n${well.stdout}`);
    for (const pulled of ["ctr pulled doctor.invalid/", `ctr pulled reg.test/${image}`, "skopeo pulled doctor.invalid/", `skopeo pulled reg.test/${image}`]) {
      assert.ok(well.stdout.includes(pulled), `${pulled}\n${well.stdout}`);
    }
    const docker = await machine.bin("dfdaemon", "doctor", "--engine", "docker", "--image", `docker.io/${image}`, "--json");
    assert.equal(docker.code, 0, docker.stdout + docker.stderr);
    assert.match(docker.stdout, /"healthy": true[^]*docker pulled docker\.io\/team\/app:v1/);
    assert.match(await machine.sh("docker run --rm --network host docker.io/team/app:v1"), /^[0-9a-f]{64}/);

    const image404 = "docker.io/team/none:v1";
    const refused = await machine.bin("dfdaemon", "doctor", ...ENGINES.flatMap((engine) => ["--engine", engine]), "--image", image404);
    assert.equal(refused.code, 1);
    for (const [engine, client] of [["containerd", "ctr"], ["docker", "docker"], ["podman", "skopeo"]]) {
      assert.match(refused.stdout, new RegExp(`BROKEN +${engine} pull +${client} could not pull ${image404}: .+; see dfdaemon's log`));
    }
    await daemon.stop();
    const alone = await machine.bin("dfdaemon", "doctor", ...ENGINES.flatMap((engine) => ["--engine", engine]));
    assert.equal(alone.code, 1);
    for (const engine of ENGINES) assert.match(alone.stdout, new RegExp(`skipped +${engine} pull +no pull can succeed before the links above are mended`));

    const undo = await machine.bin("dfdaemon", "setup", "--undo");
    assert.equal(undo.code, 0, undo.stdout + undo.stderr);
    assert.equal(await machine.listing(...ENGINE_FILES), before);
  });
});

interface Engines {
  containerd: Service;
  readonly docker: Service;
}

async function startEngines(machine: Machine): Promise<Engines> {
  const containerd = await startContainerd(machine);
  const docker = machine.start("dockerd", ["dockerd"]);
  await waitFor("dockerd answers", async () => (await machine.run(["docker", "info"])).code === 0, { services: [docker] });
  return { containerd, docker };
}

async function startContainerd(machine: Machine): Promise<Service> {
  const containerd = machine.start("containerd", ["containerd", "--log-level", "warn"]);
  await waitFor("containerd answers", async () => (await machine.run(["ctr", "version"])).code === 0, { services: [containerd] });
  return containerd;
}
