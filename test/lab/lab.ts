import { spawn } from 'node:child_process';
import { parseArgs } from 'node:util';
import {
  down,
  kindNamed,
  kindNames,
  type LabHost,
  type LabMachine,
  leftovers,
  load,
  names,
  sshCommand,
  up,
} from './index.ts';

const usage = `usage: npm run lab -- up [--name NAME] [--nodes N | --nodes KIND,KIND…] [--no-cluster]
                      down [--name NAME | --all]
                      status
                      ssh [--name NAME] NODE [COMMAND…]

kinds of nodes: ${kindNames.join(', ')}`;

async function main(argv: readonly string[]): Promise<number> {
  const [command, ...rest] = argv;
  if (command === 'up') {
    const { values } = parseArgs({
      args: rest,
      options: {
        name: { type: 'string', default: 'lab' },
        nodes: { type: 'string', default: '2' },
        'no-cluster': { type: 'boolean', default: false },
      },
    });
    const start = performance.now();
    const lab = await up({
      name: values.name,
      nodes: /^\d+$/.test(values.nodes) ? Number(values.nodes) : values.nodes.split(',').map(kindNamed),
      cluster: !values['no-cluster'],
      log: line => console.log(line),
    });
    console.log(
      `lab ${lab.name} is up after ${((performance.now() - start) / 1000).toFixed(1)} s: ${lab.directory}/lab.json`,
    );
    if (lab.kubeconfig) console.log(`export KUBECONFIG=${lab.kubeconfig}`);
    console.log(`export PATH=${lab.bin}:$PATH`);
    return 0;
  }
  if (command === 'down') {
    const { values } = parseArgs({
      args: rest,
      options: { name: { type: 'string', default: 'lab' }, all: { type: 'boolean', default: false } },
    });
    for (const name of values.all ? await names() : [values.name]) {
      await down(name);
      console.log(`lab ${name} is down`);
    }
    return 0;
  }
  if (command === 'status') {
    for (const name of await names()) await printStatus(name);
    return 0;
  }
  if (command === 'ssh') return ssh(rest);
  console.error(usage);
  return 2;
}

async function printStatus(name: string): Promise<void> {
  const lab = await load(name);
  if (!lab) {
    console.log(`${name}: not up; left of it:\n${(await leftovers(name)).map(line => `  ${line}`).join('\n')}`);
    return;
  }
  console.log(`${name}: ${lab.server ?? 'no cluster'}  ${lab.directory}`);
  for (const node of [...(lab.control ? [lab.control] : []), ...lab.nodes, lab.runner]) {
    const where = isHost(node) ? `${node.address}:${node.port}` : 'host network';
    const kind = 'kind' in node ? `  ${node.kind}` : '';
    console.log(
      `  ${node.name.padEnd(8)} ${where.padEnd(16)} pid ${node.pid}${alive(node.pid) ? '' : ' (dead)'}${kind}`,
    );
  }
}

function isHost(machine: LabMachine): machine is LabHost {
  return 'address' in machine;
}

function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function ssh(rest: readonly string[]): Promise<number> {
  const named = rest[0] === '--name';
  const name = named ? (rest[1] ?? '') : 'lab';
  const [machine, ...words] = named ? rest.slice(2) : rest;
  const lab = await load(name);
  if (!lab) throw new Error(`lab ${name} is not up`);
  const host = [...(lab.control ? [lab.control] : []), ...lab.nodes].find(candidate => candidate.name === machine);
  if (!host) throw new Error(`lab ${name} has no machine ${machine ?? ''} that answers ssh`);
  const [file = '', ...args] = sshCommand(lab, host);
  const child = spawn(file, [...args, ...words], { stdio: 'inherit' });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code ?? (signal ? 137 : 1)));
  });
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
