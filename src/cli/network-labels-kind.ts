/** The kind of setting that says where the hosts of a network stand. */
import { TOPOLOGY_LEVELS, topologyOf } from "../protocol/topology.ts";
import type { NetworkLabels } from "../supernode/config.ts";
import { parseNetwork } from "../supernode/ip-network.ts";
import { fromZod, type Zod } from "./on-demand.ts";
import { checkedTexts } from "./network-kinds.ts";
import { items, quote, splitAtEquals, type Kind } from "./setting-kinds.ts";

/** More racks than any site has. */
const ENTRIES_MAX = 65_536;
const LEVELS: ReadonlySet<string> = new Set(TOPOLOGY_LEVELS);

const entry = (z: Zod) => z.strictObject(
  {
    network: z.string({ error: "network is missing" }),
    labels: z
      .record(z.string(), z.string({ error: () => `a label needs a text: write NETWORK=LABEL:VALUE, in a file LABEL: "VALUE"` }).min(1, { error: "a label's text is empty" }).max(256), {
        error: (issue) => `${quote(issue.input)} is not a mapping of LABEL: VALUE, LABEL one of ${TOPOLOGY_LEVELS.join(", ")}`,
      })
      .transform((labels, context) => {
        const unknown = Object.keys(labels).filter((label) => !LEVELS.has(label));
        for (const label of unknown) {
          context.addIssue({ code: "custom", message: `${quote(label)} is not one of ${TOPOLOGY_LEVELS.join(", ")}`, path: [label] });
        }
        if (Object.keys(labels).length === 0) context.addIssue({ code: "custom", message: "no label is given" });
        return topologyOf(labels);
      }),
  },
  {
    error: (issue) => (issue.code === "invalid_type" ? `${quote(issue.input)} is not a mapping with network and labels` : undefined),
  },
);

export const networkLabels: Kind<readonly NetworkLabels[]> = {
  example: "[{network: 10.1.0.0/16, labels: {region: eu, zone: a}}]",
  schema: fromZod((z) => z
    .array(entry(z), { error: (issue) => (issue.code === "invalid_type" ? `${quote(issue.input)} is not a list of networks with labels` : undefined) })
    .max(ENTRIES_MAX, { error: `more than ${ENTRIES_MAX} networks` })
    .transform((list, context) => {
      const seen = new Map<string, string>();
      for (const [index, { network: text }] of list.entries()) {
        const refuse = (why: string): void => context.addIssue({ code: "custom", message: `${quote(text)} ${why}`, path: [index, "network"] });
        const network = parseNetwork(text);
        if (typeof network === "string") {
          refuse(network);
          continue;
        }
        const key = `${network.width}/${network.bits}/${network.prefix}`;
        const former = seen.get(key);
        if (former !== undefined) refuse(former === text ? "is given twice" : `is given twice, the other time as ${quote(former)}`);
        seen.set(key, text);
      }
      return list;
    })),
  fromTexts: (texts) =>
    items(texts).map((text) => {
      const [network, labels] = splitAtEquals(text);
      return { network, labels: Object.fromEntries((labels ?? "").split("/").filter((label) => label !== "").map(splitAtColon)) };
    }),
  print: (value) => (value.length === 0 ? undefined : value),
  valueName: "NETWORK=LABEL:VALUE",
};

/** Networks alone. */
export const networksWithoutHostBits: Kind<readonly string[]> = checkedTexts("NETWORK", "10.1.0.0/28", (text) => {
  const network = parseNetwork(text);
  return typeof network === "string" ? network : undefined;
});

function splitAtColon(text: string): [string, string | undefined] {
  const index = text.indexOf(":");
  return index < 0 ? [text, undefined] : [text.slice(0, index), text.slice(index + 1)];
}
