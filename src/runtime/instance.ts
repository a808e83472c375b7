/**
 * A function for scripts: `instance_of RUNTIME SOCKET` prints what changes when the runtime is started anew, since it makes
 * its socket again. Docker's may be systemd's, and stay: there the file of its process ID tells, too. No right of root is needed.
 */
export const INSTANCE = `
instance_of() {
  case $1 in
    docker) ls -id /var/run/docker.sock; cat /var/run/docker.pid ;;
    *) ls -id "$2" ;;
  esac 2>/dev/null
}`;

/** What a client says that was cut off from its runtime: gRPC's words, and docker's. */
const CUT_OFF =
  /code = Unavailable|while dialing|error reading from server|transport is closing|connection (refused|reset)|broken pipe|connect to the Docker daemon|during connect|(?<!unexpected )\bEOF$/im;

export function isCutOff(said: string): boolean {
  return CUT_OFF.test(said);
}
