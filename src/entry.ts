import { within } from './abort.ts';
import { ERRORS, SideloadError, toSideloadError } from './errors.ts';
import { EXIT, type Host } from './host/host.ts';
import { describe, publish, writeAll } from './report/publish.ts';
import { errorReport, type Report } from './report/report.ts';
import { endRun, type Run, startRun, sweepLeftRuns } from './run.ts';
import { readReportFiles, readSettings } from './settings.ts';
import { cleanUp, sideload } from './sideload.ts';
import { endLeftClients } from './ssh/openssh.ts';

const CLEAN_UP_MS = 60_000;

type Signal = 'SIGINT' | 'SIGTERM' | 'SIGHUP';

/** The main job, from inputs to the verdict, under any host. */
export async function runPush(host: Host): Promise<void> {
  const startedAt = new Date().toISOString();
  const cancelled = new AbortController();
  let signal: Signal | undefined;
  const cancel = (name: Signal) => {
    if (signal !== undefined && host.isLive) {
      // Whoever asks twice does not want to wait. The next run finds what this one leaves.
      process.exit(EXIT[name]);
    }
    if (signal === undefined && host.isLive) {
      host.info('cancelled: taking away what lies on the nodes; once more leaves it there');
    }
    signal ??= name;
    cancelled.abort(new SideloadError('CANCELLED', `the job was cancelled (${name})`));
  };
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, cancel);
  }
  const failure = () => (signal === undefined ? EXIT.failed : EXIT[signal]);
  let run: Run | undefined;
  let isRead = false;
  try {
    const settings = readSettings(host);
    isRead = true;
    run = await startRun(host, cancelled.signal);
    await sweepLeftRuns(host);
    const report = await sideload(settings, host, run);
    await endRun(run);
    host.saveState('finished', 'true');
    await publish(report, host, settings.reports, failure());
  } catch (thrown) {
    if (run !== undefined) {
      await endRun(run);
    }
    const error = toSideloadError(thrown);
    const { title } = ERRORS[error.code];
    host.error(describe(error), title);
    if (error.code === 'INTERNAL') {
      host.info(String(thrown instanceof Error ? thrown.stack : thrown));
    }
    await writeAll(withoutNodes(host, startedAt, error, run), host, readReportFiles(host));
    host.fail(`${title} [${error.code}]`, isRead || error.code === 'INTERNAL' ? failure() : EXIT.usage);
  }
}

/** The record of a run that did not get as far as any node. */
export function withoutNodes(host: Pick<Host, 'input'>, startedAt: string, error: SideloadError, run?: Run): Report {
  return {
    run: run?.id,
    mode: host.input('mode')?.trim() || 'push',
    startedAt,
    endedAt: new Date().toISOString(),
    stages: [],
    images: {},
    nodes: [],
    findings: [],
    changed: false,
    error: errorReport(error),
  };
}

/** After the job: nothing, unless the main step began a run and was killed before it could clean up. */
export async function runPost(host: Host): Promise<void> {
  if (host.state('run') === '' || host.state('finished') === 'true') {
    return;
  }
  const run = { id: host.state('run'), scratch: host.state('scratch') };
  host.info(`the job of run ${run.id} was ended from outside; cleaning up`);
  const late = () => new SideloadError('CANCELLED', `not done within ${CLEAN_UP_MS / 1000} s`);
  const cleanUpWithin = async (signal: AbortSignal) => {
    const scratch = await startRun(host, signal);
    try {
      await cleanUp(readSettings(host), host, { ...run, signal, scratch: scratch.scratch });
    } finally {
      await endRun(scratch);
    }
  };
  try {
    await within(CLEAN_UP_MS, undefined, cleanUpWithin, late);
  } catch (thrown) {
    host.warning(`clean-up after the cancelled job: ${toSideloadError(thrown).message}`);
  } finally {
    await endLeftClients(run.scratch);
    await endRun(run);
  }
}
