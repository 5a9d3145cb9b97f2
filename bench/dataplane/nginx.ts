/** nginx with sendfile, one worker, on loopback: what the data plane is held against. */
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleepFor } from "node:timers/promises";
import { generateJoinToken } from "../../src/peer/membership/credentials.ts";
import { credentialsByToken } from "../../src/peer/membership/site-authority.ts";

export interface Nginx {
  readonly port: number;
  /** The same over TLS 1.3. */
  readonly tlsPort: number;
  /** CPU seconds of the worker since its start. */
  cpuSeconds(): number;
  /** It is gone then: its pid file goes last, and a folder that is removed meanwhile stays. */
  close(): Promise<void>;
}

/** @param directory its files and what it serves */
export async function startNginx(directory: string, port: number, tlsPort: number = port + 1): Promise<Nginx> {
  const config = join(directory, "nginx.conf");
  const { cert, key } = credentialsByToken(generateJoinToken(), Date.now());
  writeFileSync(join(directory, "cert.pem"), cert);
  writeFileSync(join(directory, "key.pem"), key, { mode: 0o600 });
  const tls = `listen 127.0.0.1:${tlsPort} ssl; ssl_protocols TLSv1.3; ssl_certificate ${directory}/cert.pem; ssl_certificate_key ${directory}/key.pem;`;
  writeFileSync(
    config,
    `user root;\nworker_processes 1;\ndaemon off;\nmaster_process off;\npid ${directory}/nginx.pid;\nerror_log ${directory}/nginx.log;\nevents { worker_connections 512; }\nhttp { access_log off; sendfile on; tcp_nodelay on; server { listen 127.0.0.1:${port}; ${tls} root ${directory}; } }\n`,
  );
  const child = spawn("nginx", ["-c", config, "-p", directory], { stdio: "ignore" });
  const ended = new Promise((resolve) => child.once("close", resolve));
  await untilListening(port);
  // nanoseconds on a CPU: /proc/<pid>/schedstat, first field (kernel: Documentation/scheduler/sched-stats.rst)
  return {
    port,
    tlsPort,
    cpuSeconds: () => Number(readFileSync(`/proc/${child.pid}/schedstat`, "latin1").split(" ")[0]) / 1e9,
    close: async () => {
      child.kill();
      await ended;
    },
  };
}

async function untilListening(port: number): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
      socket.once("close", () => undefined);
      socket.once("connect", () => socket.destroy());
    });
    if (isUp) return;
    await sleepFor(50);
  }
  throw new Error(`nginx does not listen on ${port}`);
}
