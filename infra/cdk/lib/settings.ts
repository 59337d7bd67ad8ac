// The settings of a deployment, read from CDK context.
//
// Flow: `-c name=value` or CDK_CONTEXT_JSON -> here -> the stack.
//
// What always holds:
// - Every problem is reported at once, each with the name of its setting.
// - A timeout stays within what Lambda allows for a Kafka event source (14 minutes).

/** What one function may use. */
export interface FunctionSize {
  readonly memoryMb: number;
  readonly timeoutSeconds: number;
  /** Most environments at the same time; undefined takes what the account has. */
  readonly reservedConcurrency?: number;
}

/** Names of the functions, in the order of the flow. */
export const FUNCTION_NAMES = ['ingest', 'commit', 'ddl', 'mapping', 'maintain'] as const;

export type FunctionName = (typeof FUNCTION_NAMES)[number];

/** A function's name as the beginning of a construct id. */
export function labelOf(name: FunctionName): string {
  return name.charAt(0).toUpperCase() + name.slice(1);
}

/** Where the bootstraps come from: a folder on this machine, or zip files that stand in a bucket already. */
export type CodeSource =
  | { readonly kind: 'folder'; readonly path: string }
  | { readonly kind: 'bucket'; readonly bucket: string; readonly prefix: string };

export interface Settings {
  readonly stackName: string;
  readonly code: CodeSource;
  readonly architecture: 'x86_64' | 'arm64';
  /** Name of the Glue database; the agent's configuration names the same. */
  readonly database: string;
  /** Name of the bucket; CloudFormation chooses one if it is absent. */
  readonly bucketName?: string;
  readonly functions: Readonly<Record<FunctionName, FunctionSize>>;
  /** Invocations of firn-commit that the queue feeds at once. */
  readonly commitConcurrency: number;
  readonly sweepMinutes: number;
  readonly mappingMinutes: number;
  readonly maintainHours: number;
  /** For how long the intents of committed batches stay: a table that was rolled back is filled again from them. */
  readonly intentRetentionHours: number;
  /** How old a file must be that nothing names before it is removed. */
  readonly orphanAgeHours: number;
  readonly logRetentionDays: number;
  /** Filter of the functions' log, as `RUST_LOG` takes it. */
  readonly logFilter: string;
  /** The MSK cluster. Without it there are no event source mappings: the local cloud brings its own poller. */
  readonly clusterArn?: string;
  /** Topics mapped by this stack rather than by firn-mapping. Usually empty. */
  readonly topics: readonly string[];
  /** Mappings of one group share their pollers. */
  readonly pollerGroup: string;
  readonly maximumPollers: number;
  /** Seconds for which a batch is collected; undefined is Lambda's own 500 ms, which cannot be had back once this was set. */
  readonly batchWindowSeconds?: number;
  /** Subnets and security groups for the functions; none leaves them outside any VPC. */
  readonly subnetIds: readonly string[];
  readonly securityGroupIds: readonly string[];
  /** SNS topic that alarms are sent to. */
  readonly alarmTopicArn?: string;
  /** Records behind the end of a topic that raise the lag alarm. */
  readonly lagAlarmRecords: number;
  /** Address of a local cloud: the functions call it instead of AWS, with path-style addressing. */
  readonly localEndpoint?: string;
}

/** Lambda's limit for functions behind a Kafka event source. */
export const TIMEOUT_SECONDS_MAX = 14 * 60;

const SIZE_DEFAULTS: Record<FunctionName, FunctionSize> = {
  // 1769 MB is one whole vCPU; a payload of 6 MB needs far less memory.
  ingest: { memoryMb: 1769, timeoutSeconds: 120 },
  commit: { memoryMb: 1769, timeoutSeconds: 120 },
  ddl: { memoryMb: 512, timeoutSeconds: 60 },
  // Making a mapping is one call a topic, and MSK sets the pace.
  mapping: { memoryMb: 256, timeoutSeconds: 300 },
  // It reads the manifests of every table; what one run does not get to, a later one does.
  maintain: { memoryMb: 1769, timeoutSeconds: TIMEOUT_SECONDS_MAX },
};

const LOG_RETENTION_DAYS = [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/** Reads all settings through `get`, which gives `undefined` for a setting that was not given. */
export function readSettings(get: (name: string) => unknown): Settings {
  const problems: string[] = [];

  const text = (name: string): string | undefined => {
    const value = get(name);
    if (value === undefined || value === null || value === '') return undefined;
    if (typeof value === 'string') return value;
    problems.push(`${name}: expected text`);
    return undefined;
  };
  const whole = (name: string, least: number, most: number): number | undefined => {
    const value = get(name);
    if (value === undefined || value === null || value === '') return undefined;
    const number = typeof value === 'string' ? Number(value) : value;
    if (typeof number === 'number' && Number.isInteger(number) && number >= least && number <= most) return number;
    problems.push(`${name}: expected a whole number from ${least} to ${most}`);
    return undefined;
  };
  const list = (name: string): readonly string[] => {
    const value = get(name);
    if (value === undefined || value === null) return [];
    const items: unknown[] = typeof value === 'string' ? value.split(',') : Array.isArray(value) ? value : [value];
    if (items.every((item) => typeof item === 'string')) {
      return items.map((item) => item.trim()).filter((item) => item !== '');
    }
    problems.push(`${name}: expected a list of texts, or one text with commas`);
    return [];
  };
  const size = (name: FunctionName): FunctionSize => ({
    memoryMb: whole(`${name}MemoryMb`, 128, 10_240) ?? SIZE_DEFAULTS[name].memoryMb,
    timeoutSeconds: whole(`${name}TimeoutSeconds`, 1, TIMEOUT_SECONDS_MAX) ?? SIZE_DEFAULTS[name].timeoutSeconds,
    reservedConcurrency: whole(`${name}ReservedConcurrency`, 1, 100_000),
  });

  const architecture = text('architecture') ?? 'x86_64';
  if (architecture !== 'x86_64' && architecture !== 'arm64') {
    problems.push('architecture: expected x86_64 or arm64');
  }
  const database = text('database') ?? 'firn';
  if (!/^[a-z0-9_]{1,255}$/.test(database)) {
    problems.push('database: expected lower-case letters, digits and _ (Glue and Athena fold the rest)');
  }
  const logRetentionDays = whole('logRetentionDays', 1, 3653) ?? 30;
  if (!LOG_RETENTION_DAYS.includes(logRetentionDays)) {
    problems.push(`logRetentionDays: CloudWatch takes one of ${LOG_RETENTION_DAYS.join(', ')}`);
  }
  const clusterArn = text('clusterArn');
  if (clusterArn !== undefined && !/^arn:[^:]+:kafka:[^:]+:[0-9]{12}:cluster\/[^/]+\/[^/]+$/.test(clusterArn)) {
    problems.push('clusterArn: expected arn:aws:kafka:<region>:<account>:cluster/<name>/<id>');
  }
  const topics = list('topics');
  if (topics.length > 0 && clusterArn === undefined) {
    problems.push('topics: need clusterArn');
  }
  const subnetIds = list('subnetIds');
  const securityGroupIds = list('securityGroupIds');
  if ((subnetIds.length > 0) !== (securityGroupIds.length > 0)) {
    problems.push('subnetIds, securityGroupIds: give both or neither');
  }

  const bootstraps = text('bootstraps');
  const codeBucket = text('codeBucket');
  if ((bootstraps === undefined) === (codeBucket === undefined)) {
    problems.push(
      'bootstraps, codeBucket: give one of them: the folder that holds firn-ingest/bootstrap and so on, ' +
        'or the bucket that holds <codePrefix>firn-ingest.zip and so on',
    );
  }
  const code: CodeSource =
    codeBucket === undefined
      ? { kind: 'folder', path: bootstraps ?? '' }
      : { kind: 'bucket', bucket: codeBucket, prefix: text('codePrefix') ?? '' };

  const settings: Settings = {
    stackName: text('stackName') ?? 'FirnStack',
    code,
    architecture: architecture === 'arm64' ? 'arm64' : 'x86_64',
    database,
    bucketName: text('bucketName'),
    functions: {
      ingest: size('ingest'),
      commit: size('commit'),
      ddl: size('ddl'),
      mapping: size('mapping'),
      maintain: size('maintain'),
    },
    commitConcurrency: whole('commitConcurrency', 2, 1000) ?? 2,
    sweepMinutes: whole('sweepMinutes', 1, 60) ?? 1,
    mappingMinutes: whole('mappingMinutes', 1, 1440) ?? 1,
    maintainHours: whole('maintainHours', 1, 24) ?? 6,
    // The bounds of the function's own configuration (functions/maintain/src/ages.rs).
    intentRetentionHours: whole('intentRetentionHours', 24, 87_600) ?? 168,
    orphanAgeHours: whole('orphanAgeHours', 24, 87_600) ?? 72,
    logRetentionDays,
    logFilter: text('logFilter') ?? 'info',
    clusterArn,
    topics,
    pollerGroup: text('pollerGroup') ?? 'firn',
    maximumPollers: whole('maximumPollers', 1, 2000) ?? 2,
    batchWindowSeconds: whole('batchWindowSeconds', 0, 300),
    subnetIds,
    securityGroupIds,
    alarmTopicArn: text('alarmTopicArn'),
    lagAlarmRecords: whole('lagAlarmRecords', 1, 1_000_000_000) ?? 100_000,
    localEndpoint: text('localEndpoint'),
  };
  if (problems.length > 0) {
    throw new Error(`the deployment's settings have ${problems.length} problem(s):\n  ${problems.join('\n  ')}`);
  }
  return settings;
}
