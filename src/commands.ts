import type { Inputs } from './inputs.ts';

type Mode = Inputs['mode'];

interface Command {
  /** A few words, for lists. */
  readonly about: string;
  /** What it does and when it ends well, in sentences. */
  readonly help: string;
  /** Command lines with what they are for. */
  readonly examples: readonly (readonly [line: string, purpose: string])[];
}

/** The commands that do a job: one for each mode. */
export const COMMANDS: Readonly<Record<Mode, Command>> = {
  push: {
    about: 'put images on the nodes, and prove that they run there',
    help: 'Sends the images that the nodes lack over SSH into their runtimes, compares what the runtimes hold with what CI built, moves the names on all nodes or on none, and starts a smoke pod on each node. Ends with 0 when every node runs every image.',
    examples: [
      ['push --images app:1.2 --nodes 10.0.0.11,10.0.0.12', 'an image of this machine’s docker or podman, two nodes'],
      ['push --archive app.tar --nodes worker-1 --namespace smoke', 'all images of an archive'],
      ['push --images app:1.2', 'nodes from kube-sideload.yaml here, or from the inventory of this machine'],
      ['push --images app:1.2 --nodes-from-cluster true', 'every node that the kubeconfig’s cluster has'],
      ['push --images app:1.2 --smoke none --json > report.json', 'no cluster at hand; the record as JSON'],
    ],
  },
  plan: {
    about: 'say what push would do, and change nothing',
    help: 'Opens the images, connects to the nodes, and prints what would be sent to which node and every reason why a node would fail. Ends with 0 when a push would start.',
    examples: [
      ['plan --images app:1.2 --nodes 10.0.0.11,10.0.0.12', 'two nodes'],
      ['plan --images app:1.2 --quiet', 'the table alone'],
    ],
  },
  bundle: {
    about: 'write images into one file, to carry to where the nodes are',
    help: 'Writes one OCI archive with the images under all of their names, for every platform that the source has, compressed as they would be sent. Asks no node and no cluster, and needs no key. On the other side `push --archive` takes the file and sends what the nodes lack. Ends with 0 when the file is complete.',
    examples: [
      ['bundle --images app:1.2 --bundle app.tar', 'an image of this machine’s docker or podman'],
      ['bundle --archive multi-platform.tar --bundle app.tar', 'all images and platforms of an archive'],
    ],
  },
  check: {
    about: 'compare the nodes with what should be there, and change nothing',
    help: 'Asks every node what it holds, and compares image IDs with the record of a push (`--expected`), or with the images themselves. Ends with 0 when no node differs; else the table and the output `drift` say what is missing where.',
    examples: [
      ['check --expected report.json --nodes 10.0.0.11,10.0.0.12', 'by what a push has recorded with --report-json'],
      ['check --expected report.json --nodes-from-cluster true', 'also nodes that joined later'],
      ['check --images app:1.2 --nodes worker-1', 'by the image of this machine’s docker or podman'],
    ],
  },
  prune: {
    about: 'remove old images that this tool has put on the nodes',
    help: 'Of each repository the newest releases stay, as many as `--keep` says. Older ones go, if they are as they were put there and no container was made from them. What somebody else has put on a node is not touched. Ends with 0 when every node has done so.',
    examples: [
      ['prune --keep 3 --nodes 10.0.0.11,10.0.0.12', 'all repositories that were pushed to these nodes'],
      ['prune --images app --keep 3 --dry-run true', 'only say what would go, of one repository'],
    ],
  },
};

export const MODES = Object.keys(COMMANDS) as readonly Mode[];

export function isMode(name: string | undefined): name is Mode {
  return name !== undefined && Object.hasOwn(COMMANDS, name);
}

/** What the command line takes besides inputs. */
export const SWITCHES = {
  json: 'Print the record of the run as JSON on standard output, and nothing else there.',
  quiet: 'Print what is wrong and the table at the end, and nothing else.',
  help: 'Print this; after a command, what it does, with examples and all options.',
  version: 'Print the version.',
} as const;

/** One letter in place of the word. */
export const SHORT: Readonly<Partial<Record<keyof typeof SWITCHES, string>>> = { help: 'h', quiet: 'q' };

export const SHELLS = ['bash', 'zsh', 'fish'] as const;

export type Shell = (typeof SHELLS)[number];
