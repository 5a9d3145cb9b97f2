/** The units of deploy/systemd under a systemd of their own: hardened as they are, the programs do their work. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { Lab } from "./lib/processes.ts";

const PACKAGE = join(import.meta.dirname, "../..");

/** As the README has it, by an administrator whose machine has just started. */
const STEPS = `
until curl -sf -o /dev/null http://127.0.0.1:8002/readyz; do sleep 0.2; done
install -D -m 600 /var/lib/dragonfly/supernode/join-token /etc/dragonfly/join-token
echo 'joinTokenFile: /etc/dragonfly/join-token' >/etc/dragonfly/dfdaemon.yaml
dfdaemon setup --engine podman
systemctl start dfdaemon
until curl -sf -o /dev/null http://127.0.0.1:65001/readyz; do sleep 0.2; done
stat -c '%n %A' /var/lib/dragonfly/supernode/. /var/lib/dragonfly/dfdaemon/. /run/dragonfly/dfdaemon.sock
ps -o user= -C MainThread | sort -u
dfdaemon doctor --engine podman && echo doctor: exit 0
dfget -q http://127.0.0.1:8002/openapi.json -O /root/openapi.json && echo dfget: exit 0
systemctl reload supernode dfdaemon
sleep 1
systemctl stop dfdaemon supernode
systemctl show -p Id,Result,ExecMainStatus dfdaemon supernode
dfdaemon setup --undo
echo all steps done
`;

const CHECK_UNIT = `[Unit]
After=supernode.service
[Service]
Type=oneshot
StandardOutput=file:/mnt/log
StandardError=file:/mnt/log
ExecStart=/bin/sh -e /mnt/steps.sh
ExecStopPost=/bin/systemctl --no-block --force poweroff
`;

void test("a machine with the units of deploy/systemd: both services run, unprivileged, and stop in order", async () => {
  const lab = new Lab("units");
  await lab.use(async () => {
    lab.makeDir("mnt");
    lab.writeFile("mnt/steps.sh", STEPS);
    lab.writeFile("check.service", CHECK_UNIT);
    lab.writeFile("check.target", "[Unit]\nRequires=basic.target supernode.service check.service\nAfter=basic.target\nAllowIsolate=yes\n");
    const script = `
      mkdir rw root; mount -t tmpfs tmpfs rw; mkdir rw/upper rw/work
      mount -t overlay overlay -o lowerdir=/,upperdir=$PWD/rw/upper,workdir=$PWD/rw/work root
      rm -rf root/etc/machine-id root/usr/local/bin root/etc/dragonfly root/var/lib/dragonfly
      mkdir -p root/usr/local/bin root/opt/dragonfly
      for name in supernode dfdaemon dfget; do ln -s /opt/dragonfly/bin/$name root/usr/local/bin/; done
      cp '${PACKAGE}'/deploy/systemd/*.service check.service check.target root/etc/systemd/system/
      for name in systemd-networkd systemd-networkd-wait-online systemd-firstboot; do ln -sf /dev/null root/etc/systemd/system/$name.service; done
      exec systemd-nspawn --quiet --register=no --keep-unit --directory=root --private-network \\
        --bind=$PWD/mnt:/mnt --bind-ro='${PACKAGE}':/opt/dragonfly --boot -- systemd.unit=check.target`;
    const booted = await lab.run(["sh", "-ec", script], { ownMounts: true, timeoutMs: 600_000 });
    const log = readFileSync(lab.path("mnt/log"), { encoding: "utf8", flag: "a+" });
    assert.match(log, /all steps done\n$/, `${booted.stdout.slice(-4000)}${booted.stderr}\n${log}`);
    assert.match(log, /supernode\/\. drwx------\n.*dfdaemon\/\. drwx------\n.*dfdaemon\.sock srw-rw----\n/);
    assert.match(log, /^dragonfly\n(?:dragonfl\+|dragonfly-supernode)$/m, log);
    assert.match(log, /all is well\ndoctor: exit 0\ndfget: exit 0\n/);
    for (const unit of ["dfdaemon", "supernode"]) assert.match(log, new RegExp(`Result=success\nExecMainStatus=0\nId=${unit}\\.service`));
  });
});
