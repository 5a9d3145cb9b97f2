/** nginx with sendfile, one worker, on loopback: what the data plane is held against. */
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleepFor } from "node:timers/promises";

export interface Nginx {
  readonly port: number;
  /** CPU seconds of the worker since its start. */
  cpuSeconds(): number;
  close(): void;
}

/** @param directory its files and what it serves */
export async function startNginx(directory: string, port: number): Promise<Nginx> {
  const config = join(directory, "nginx.conf");
  writeFileSync(
    config,
    `user root;\nworker_processes 1;\ndaemon off;\nmaster_process off;\npid ${directory}/nginx.pid;\nerror_log ${directory}/nginx.log;\nevents { worker_connections 512; }\nhttp { access_log off; sendfile on; tcp_nodelay on; server { listen 127.0.0.1:${port}; root ${directory}; } }\n`,
  );
  const child = spawn("nginx", ["-c", config, "-p", directory], { stdio: "ignore" });
  await untilListening(port);
  // nanoseconds on a CPU: /proc/<pid>/schedstat, first field (kernel: Documentation/scheduler/sched-stats.rst)
  return {
    port,
    cpuSeconds: () => Number(readFileSync(`/proc/${child.pid}/schedstat`, "latin1").split(" ")[0]) / 1e9,
    close: () => void child.kill(),
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
