import { COMMANDS, MODES, SHELLS, SHORT, type Shell, SWITCHES } from './commands.ts';
import { INPUT_NAMES, inputSpec } from './inputs.ts';

interface Flag {
  readonly name: string;
  readonly about: string;
  /** What may follow; `undefined` when it is the user's own. Switches take nothing. */
  readonly value: readonly string[] | 'file' | 'text' | undefined;
}

/** Options that take a path although they take other things too. */
const ALSO_FILES: ReadonlySet<string> = new Set(['kubeconfig', 'kubectl']);

const FLAGS: readonly Flag[] = [
  ...INPUT_NAMES.filter(name => name !== 'mode' && inputSpec(name).type !== 'secret').map((name): Flag => {
    const { type, help } = inputSpec(name);
    const isFile = type === 'path' || ALSO_FILES.has(name);
    return {
      name,
      about: firstSentence(help),
      value: typeof type === 'object' ? type.oneOf : isFile ? 'file' : 'text',
    };
  }),
  ...Object.entries(SWITCHES).map(([name, help]): Flag => ({ name, about: firstSentence(help), value: undefined })),
];

const WORDS = [...MODES, 'completion'];

/** A script that makes a shell complete commands, options, choices and paths. */
export function completionScript(shell: Shell): string {
  return { bash, zsh, fish }[shell]();
}

function firstSentence(help: string): string {
  return (/^.*?[.:;](?= |$)/.exec(help)?.[0] ?? help).replace(/[.:;]$/, '').replaceAll('`', '');
}

function withValue(of: (flag: Flag) => boolean): string {
  return FLAGS.filter(of)
    .map(({ name }) => `--${name}`)
    .join('|');
}

/** Bash splits `--flag=value` at the `=` (COMP_WORDBREAKS), so that both forms come as words of their own. */
function bash(): string {
  const choices = FLAGS.flatMap(({ name, value }) =>
    Array.isArray(value) ? [`    --${name}) words='${value.join(' ')}' ;;`] : [],
  );
  return `# bash completion for kube-sideload: source it, or put it into /etc/bash_completion.d
_kube_sideload() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} words= word command=
  if [ "$current" = = ]; then
    current=
  elif [ "$previous" = = ]; then
    previous=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in ${WORDS.join('|')}) command=$word; break ;; esac
  done
  COMPREPLY=()
  case $previous in
    ${withValue(({ value }) => value === 'file')})
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return ;;
    ${withValue(({ value }) => value === 'text')}) return ;;
${choices.join('\n')}
    *)
      if [ "$command" = completion ]; then
        words='${SHELLS.join(' ')}'
      elif [ -z "$command" ] && [ "\${current#-}" = "$current" ]; then
        words='${WORDS.join(' ')}'
      else
        words='${FLAGS.map(({ name }) => `--${name}`).join(' ')}'
      fi ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _kube_sideload kube-sideload
`;
}

function zsh(): string {
  const quote = (text: string) => text.replaceAll("'", "'\\''").replaceAll(/[[\]:\\]/g, String.raw`\$&`);
  const options = FLAGS.map(({ name, about, value }) => {
    const action = value === 'file' ? ':path:_files' : value === 'text' ? ':value: ' : '';
    const after = Array.isArray(value) ? `:value:(${value.join(' ')})` : action;
    // Lists may be given in several flags.
    return `    '${value === undefined ? '' : '*'}--${name}${value === undefined ? '' : '='}[${quote(about)}]${after}'`;
  });
  return `#compdef kube-sideload
# zsh completion for kube-sideload: put it as _kube-sideload into a directory of $fpath
_kube-sideload() {
  local -a commands options
  commands=(
${MODES.map(mode => `    '${mode}:${quote(COMMANDS[mode].about)}'`).join('\n')}
    'completion:print a completion script'
  )
  options=(
${options.join('\n')}
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe command commands
  elif [[ $words[2] == completion ]]; then
    compadd ${SHELLS.join(' ')}
  else
    _arguments -s $options '1:command:(${WORDS.join(' ')})'
  fi
}
if [ "$funcstack[1]" = _kube-sideload ]; then
  _kube-sideload "$@"
else
  compdef _kube-sideload kube-sideload
fi
`;
}

function fish(): string {
  const quote = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
  const commands = [
    ...MODES.map(mode => [mode, COMMANDS[mode].about] as const),
    ['completion', 'print a completion script'] as const,
  ];
  return [
    '# fish completion for kube-sideload: put it into ~/.config/fish/completions/kube-sideload.fish',
    'complete -c kube-sideload -f',
    ...commands.map(
      ([name, about]) => `complete -c kube-sideload -n __fish_use_subcommand -a ${name} -d ${quote(about)}`,
    ),
    `complete -c kube-sideload -n '__fish_seen_subcommand_from completion' -a ${quote(SHELLS.join(' '))}`,
    ...FLAGS.map(({ name, about, value }) => {
      const short = SHORT[name as keyof typeof SHORT];
      const letter = short === undefined ? '' : ` -s ${short}`;
      const takes =
        value === undefined
          ? ''
          : value === 'file'
            ? ' -r -F'
            : value === 'text'
              ? ' -x'
              : ` -x -a ${quote(value.join(' '))}`;
      return `complete -c kube-sideload -n 'not __fish_seen_subcommand_from completion' -l ${name}${letter}${takes} -d ${quote(about)}`;
    }),
    '',
  ].join('\n');
}
