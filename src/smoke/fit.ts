import { SideloadError, toSideloadError } from '../errors.ts';
import type { Kubectl } from './kubectl.ts';
import type { Quantities, Security, SmokePod } from './pod.ts';

/** How the smoke pods of one image are made so that the namespace admits them. */
export type Fit = Pick<SmokePod, 'security' | 'resources'>;

export interface FitSettings {
  readonly security: 'auto' | 'image' | 'restricted';
  readonly resources: { readonly requests: Quantities; readonly limits: Quantities };
}

/** A user that no image gives any rights to: `nobody` of most distributions. */
const NOBODY = 65_534;
/** For namespaces whose quota wants limits, when the user names none. */
const LIMITS: Quantities = { cpu: '500m', memory: '128Mi' };

/** What is tried first. With `auto` an image whose user is a number other than 0 runs under the strictest rules. */
export function firstFit(user: string, { security, resources }: FitSettings): Fit {
  // The kubelet can compare numbers alone with `runAsNonRoot`.
  const isNumbered = /^0*[1-9]\d*(:|$)/.test(user);
  const level: Security =
    security === 'restricted' || (security === 'auto' && isNumbered)
      ? { level: 'restricted', runAsUser: isNumbered ? undefined : NOBODY }
      : { level: 'image' };
  return { security: level, resources };
}

/**
 * Asks the API server, which makes nothing, until it admits a pod: for a namespace that wants Pod Security `restricted` an
 * image of root's runs as nobody; for one whose quota wants limits they are set.
 * @param manifestOf the pod with a fit
 * @returns the fit, and what had to be changed for it
 * @throws SideloadError with the API server's last word
 */
export async function fitPod(
  kubectl: Kubectl,
  first: Fit,
  settings: FitSettings,
  manifestOf: (fit: Fit) => object,
): Promise<{ readonly fit: Fit; readonly changes: readonly string[] }> {
  const changes: string[] = [];
  let fit = first;
  for (;;) {
    try {
      const pod = await kubectl.createPod(manifestOf(fit), { dryRun: true });
      const pulled = pod.spec?.containers?.find(({ imagePullPolicy = 'Never' }) => imagePullPolicy !== 'Never');
      if (pulled !== undefined) {
        throw new SideloadError(
          'PULL_FORCED',
          `the pod was sent with \`imagePullPolicy: Never\`, and the API server makes it ${pulled.imagePullPolicy}`,
        );
      }
      return { fit, changes };
    } catch (thrown) {
      const { code, message } = toSideloadError(thrown);
      const { security, resources } = fit;
      if (code === 'POD_SECURITY' && settings.security === 'auto' && security.level === 'image') {
        fit = { resources, security: { level: 'restricted', runAsUser: NOBODY } };
        changes.push(`as user ${NOBODY} under Pod Security \`restricted\`, since the namespace wants it`);
      } else if (code === 'QUOTA_EXCEEDED' && /must specify [^;]*limits\./.test(message) && !hasAny(resources.limits)) {
        fit = { security, resources: { ...resources, limits: LIMITS } };
        changes.push(
          `with limits of ${LIMITS.cpu} CPU and ${LIMITS.memory}, since a quota of the namespace wants some`,
        );
      } else {
        throw code === 'POD_SECURITY' && security.level === 'restricted' ? refusedEvenSo(message) : thrown;
      }
    }
  }
}

/** What a pod had to do without that the image would have by itself, why, and how to let it have that. */
export interface Confinement {
  readonly says: string;
  readonly hint: string;
}

/** `undefined` for a pod that runs as the image would. */
export function confinementOf({ security }: Fit, settings: Pick<FitSettings, 'security'>): Confinement | undefined {
  if (security.level === 'image') {
    return undefined;
  }
  const as = security.runAsUser === undefined ? 'without capabilities' : `as user ${security.runAsUser}`;
  if (settings.security === 'restricted') {
    return {
      says: `the pod ran ${as}, under Pod Security \`restricted\`, as \`smoke-security: restricted\` wants it`,
      hint: 'set `smoke-security: image`, and it runs as the image says',
    };
  }
  return security.runAsUser === undefined
    ? {
        says: `the pod ran ${as}, under Pod Security \`restricted\`, as the image has a user of its own`,
        hint: 'set `smoke-security: image`, and it has what the image asks for',
      }
    : {
        says: `the pod ran ${as}, under Pod Security \`restricted\`, since the namespace wants it, and not as root`,
        hint: 'name a `namespace` that lets it run as root, or a user by number in the image (`USER 10001`)',
      };
}

/** The strictest pod that there is was refused: `smoke-security` has nothing more to offer. */
function refusedEvenSo(message: string): SideloadError {
  const constraint = /security context constraint/.test(message)
    ? 'let the service account of the namespace use an SCC that admits it, such as `restricted-v2`, '
    : '';
  return new SideloadError('POD_SECURITY', message, {
    hint: `This was said of a \`restricted\` pod already: ${constraint}use another \`namespace\`, or give the pod that it admits with \`smoke-manifest\`.`,
  });
}

function hasAny(quantities: Quantities): boolean {
  return Object.keys(quantities).length > 0;
}
