import type { Asked } from "./asked.ts";
import { freePort } from "../../lib/ports.ts";
import { answersTcp, type Lab, linesOf, type Service, waitFor } from "./processes.ts";

/** What nginx says of the files of one location, and whether it gives parts of them. */
export interface Habits {
  readonly etag: boolean;
  readonly lastModified: boolean;
  readonly ranges: boolean;
  /** Per connection. Absent: as fast as it can. */
  readonly bytesPerSecond?: number;
}

interface NginxOptions {
  readonly root: string;
  readonly port: number;
  readonly configuration: string;
  readonly logFile: string;
}

/** A real nginx over a folder of the lab; each location serves the same files with other habits. */
export class Nginx {
  readonly root: string;
  readonly url: string;
  readonly #lab: Lab;
  readonly #options: NginxOptions;
  #service: Service | undefined;

  private constructor(lab: Lab, options: NginxOptions) {
    this.#lab = lab;
    this.#options = options;
    this.root = options.root;
    this.url = `http://127.0.0.1:${options.port}`;
  }

  /** @param locations by name: `/<name>/<file>` serves `<root>/<file>` */
  static async start(lab: Lab, locations: Readonly<Record<string, Habits>>): Promise<Nginx> {
    const port = await freePort();
    const root = lab.makeDir("nginx-root");
    const logFile = lab.path("nginx-access.log");
    const blocks = Object.entries(locations).map(
      ([name, { etag, lastModified, ranges, bytesPerSecond = 0 }]) => `
        location /${name}/ {
          alias ${root}/;
          etag ${etag ? "on" : "off"};
          ${lastModified ? "" : 'add_header Last-Modified ""; if_modified_since off;'}
          ${ranges ? "" : "max_ranges 0;"}
          limit_rate ${bytesPerSecond};
        }`,
    );
    const configuration = lab.writeFile("nginx.conf", `
      daemon off; user root; worker_processes 1; pid ${lab.path("nginx.pid")}; error_log stderr warn;
      events { worker_connections 256; }
      http {
        log_format asked escape=json '{"method":"$request_method","path":"$uri","status":$status,"range":"$http_range",'
          '"ifNoneMatch":"$http_if_none_match","ifModifiedSince":"$http_if_modified_since"}';
        access_log ${logFile} asked;
        client_body_temp_path ${lab.path("nginx-body")};
        proxy_temp_path ${lab.path("nginx-proxy")};
        fastcgi_temp_path ${lab.path("nginx-fastcgi")};
        uwsgi_temp_path ${lab.path("nginx-uwsgi")};
        scgi_temp_path ${lab.path("nginx-scgi")};
        server { listen 127.0.0.1:${port}; ${blocks.join("")} }
      }
    `);
    const nginx = new Nginx(lab, { root, port, configuration, logFile });
    await nginx.restart();
    return nginx;
  }

  async restart(): Promise<void> {
    const { port, configuration } = this.#options;
    this.#service = this.#lab.start("nginx", ["nginx", "-c", configuration, "-e", "stderr"]);
    await waitFor("nginx is ready", () => answersTcp("127.0.0.1", port), { services: [this.#service] });
  }

  /** With all that it was sending. */
  async kill(): Promise<void> {
    await this.#service?.kill();
  }

  /** All that was answered about a path so far. A request is there when its answer has ended. */
  asked(path: string): Asked[] {
    return linesOf(this.#options.logFile)
      .map((line) => {
        const { range, ifNoneMatch, ifModifiedSince, ...rest } = JSON.parse(line) as Asked & Record<string, string>;
        const orNone = (text: string | undefined): string | undefined => (text === "" ? undefined : text);
        return { ...rest, range: orNone(range), ifNoneMatch: orNone(ifNoneMatch), ifModifiedSince: orNone(ifModifiedSince) };
      })
      .filter((entry) => entry.path === path);
  }
}
