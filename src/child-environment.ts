/** How the variables begin that carry inputs: on GitHub and its like, and for the command line. */
const OURS = /^(?:INPUT|KUBE_SIDELOAD)_/;

/**
 * The environment of every program that we start: the job’s own, which engines, ssh, kubectl and their plugins are set up by
 * (proxies, `DOCKER_HOST`, `KUBECONFIG`, `SSH_AUTH_SOCK`, the cloud’s identity), without our inputs. Keys and passwords are
 * among those, and no program needs one from there: ssh sends variables to nodes where its configuration says so, and
 * plugins log theirs.
 */
export function childEnvironment(changes: Readonly<Record<string, string>> = {}): Record<string, string> {
  const inherited = Object.entries(process.env).flatMap(([name, value]) =>
    value === undefined || OURS.test(name) ? [] : [[name, value] as const],
  );
  return { ...Object.fromEntries(inherited), ...changes };
}
