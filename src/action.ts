import { runPost, runPush } from './entry.ts';
import { githubHost } from './host/github.ts';
import { catchStray } from './host/stray.ts';

// GitHub runs this file twice, as `main` and as `post`; what the first one saves tells the second which it is.
const host = githubHost();
catchStray(host);
if (host.state('started') === 'true') {
  await runPost(host);
} else {
  host.saveState('started', 'true');
  await runPush(host);
}
