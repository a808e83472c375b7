import { ERRORS, SideloadError, toSideloadError } from './errors.ts';
import type { Host } from './host/host.ts';
import { publish } from './report/publish.ts';
import { endRun, type Run, startRun } from './run.ts';
import { readSettings } from './settings.ts';
import { cleanUp, sideload } from './sideload.ts';
import { endLeftClients } from './ssh/openssh.ts';

const CLEAN_UP_MS = 60_000;

/** The main job, from inputs to the verdict, under any host. */
export async function runPush(host: Host): Promise<void> {
  const cancelled = new AbortController();
  const cancel = (name: NodeJS.Signals) =>
    cancelled.abort(new SideloadError('CANCELLED', `the job was cancelled (${name})`));
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, cancel);
  }
  let run: Run | undefined;
  try {
    const settings = readSettings(host);
    run = await startRun(host, cancelled.signal);
    const report = await sideload(settings, host, run);
    await endRun(run);
    host.saveState('finished', 'true');
    await publish(report, host);
  } catch (thrown) {
    if (run !== undefined) {
      await endRun(run);
    }
    const error = toSideloadError(thrown);
    const { title } = ERRORS[error.code];
    host.error(`${error.message}\nNext step: ${error.hint} [${error.code}]`, title);
    if (error.code === 'INTERNAL') {
      host.info(String(thrown instanceof Error ? thrown.stack : thrown));
    }
    host.fail(`${title} [${error.code}]`);
  }
}

/** After the job: nothing, unless the main step began a run and was killed before it could clean up. */
export async function runPost(host: Host): Promise<void> {
  if (host.state('run') === '' || host.state('finished') === 'true') {
    return;
  }
  const run: Run = {
    id: host.state('run'),
    scratch: host.state('scratch'),
    signal: AbortSignal.timeout(CLEAN_UP_MS),
  };
  host.info(`the job of run ${run.id} was ended from outside; cleaning up`);
  try {
    const scratch = await startRun(host, run.signal);
    try {
      await cleanUp(readSettings(host), host, { ...run, scratch: scratch.scratch });
    } finally {
      await endRun(scratch);
    }
  } catch (thrown) {
    host.warning(`clean-up after the cancelled job: ${toSideloadError(thrown).message}`);
  } finally {
    await endLeftClients(run.scratch);
    await endRun(run);
  }
}
