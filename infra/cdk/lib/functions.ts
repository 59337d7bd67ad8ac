// The functions, their environment and their logs.
//
// What always holds: a function's name is known before deployment, so that one may be told another's name without a
// circle of references.

import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { Duration, RemovalPolicy } from 'aws-cdk-lib';
import { ManagedPolicy, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Architecture, Code, Function as LambdaFunction, Runtime } from 'aws-cdk-lib/aws-lambda';
import type { CfnFunction } from 'aws-cdk-lib/aws-lambda';
import { LogGroup } from 'aws-cdk-lib/aws-logs';
import { Bucket } from 'aws-cdk-lib/aws-s3';
import type { Construct } from 'constructs';

import { FUNCTION_NAMES, labelOf, type FunctionName, type Settings } from './settings.ts';

export type FirnFunctions = Readonly<Record<FunctionName, LambdaFunction>>;

/** The name by which a function is called. */
export function functionName(name: FunctionName): string {
  return `firn-${name}`;
}

export function makeFunctions(
  scope: Construct,
  settings: Settings,
  places: { readonly bucketName: string; readonly queueUrl: string },
): FirnFunctions {
  const made: Partial<Record<FunctionName, LambdaFunction>> = {};
  for (const name of FUNCTION_NAMES) {
    made[name] = makeFunction(scope, name, settings, environment(name, settings, places));
  }
  return made as FirnFunctions;
}

/** What a function's config.rs reads. */
function environment(
  name: FunctionName,
  settings: Settings,
  places: { readonly bucketName: string; readonly queueUrl: string },
): Record<string, string> {
  const variables: Record<string, string> = { FIRN_BUCKET: places.bucketName, RUST_LOG: settings.logFilter };
  if (name === 'ingest' || name === 'commit') {
    variables.FIRN_DDL_FUNCTION = functionName('ddl');
    variables.FIRN_QUEUE_URL = places.queueUrl;
  }
  if (name === 'mapping') {
    variables.FIRN_INGEST_FUNCTION = functionName('ingest');
    variables.FIRN_CLUSTER_ARN = settings.clusterArn ?? '';
    variables.FIRN_POLLER_GROUP = settings.pollerGroup;
    variables.FIRN_MAXIMUM_POLLERS = String(settings.maximumPollers);
    if (settings.batchWindowSeconds !== undefined) {
      variables.FIRN_BATCH_WINDOW_SECONDS = String(settings.batchWindowSeconds);
    }
  }
  if (name === 'maintain') {
    variables.FIRN_INTENT_RETENTION_HOURS = String(settings.intentRetentionHours);
    variables.FIRN_ORPHAN_AGE_HOURS = String(settings.orphanAgeHours);
  }
  if (settings.localEndpoint !== undefined) {
    variables.AWS_ENDPOINT_URL = settings.localEndpoint;
    variables.FIRN_S3_PATH_STYLE = '1';
  }
  return variables;
}

function makeFunction(
  scope: Construct,
  name: FunctionName,
  settings: Settings,
  variables: Record<string, string>,
): LambdaFunction {
  const id = labelOf(name);
  const size = settings.functions[name];
  const logGroup = new LogGroup(scope, `${id}Log`, {
    logGroupName: `/aws/lambda/${functionName(name)}`,
    retention: settings.logRetentionDays,
    removalPolicy: RemovalPolicy.DESTROY,
  });
  // The role is ours, so that it holds what permissions.ts says and no managed policy with `*`.
  const role = new Role(scope, `${id}Role`, {
    assumedBy: new ServicePrincipal('lambda.amazonaws.com'),
    description: `What ${functionName(name)} may do`,
  });
  logGroup.grantWrite(role);
  const made = new LambdaFunction(scope, id, {
    functionName: functionName(name),
    description: DESCRIPTIONS[name],
    runtime: Runtime.PROVIDED_AL2023,
    handler: 'bootstrap',
    architecture: settings.architecture === 'arm64' ? Architecture.ARM_64 : Architecture.X86_64,
    code: codeOf(scope, id, name, settings),
    memorySize: size.memoryMb,
    timeout: Duration.seconds(size.timeoutSeconds),
    reservedConcurrentExecutions: size.reservedConcurrency,
    environment: variables,
    logGroup,
    role,
  });
  if (settings.subnetIds.length > 0) {
    const resource = made.node.defaultChild as CfnFunction;
    resource.vpcConfig = { subnetIds: [...settings.subnetIds], securityGroupIds: [...settings.securityGroupIds] };
    role.addManagedPolicy(ManagedPolicy.fromAwsManagedPolicyName('service-role/AWSLambdaVPCAccessExecutionRole'));
  }
  return made;
}

function codeOf(scope: Construct, id: string, name: FunctionName, settings: Settings): Code {
  if (settings.code.kind === 'bucket') {
    const bucket = Bucket.fromBucketName(scope, `${id}Code`, settings.code.bucket);
    return Code.fromBucket(bucket, `${settings.code.prefix}${functionName(name)}.zip`);
  }
  const { path } = settings.code;
  // cargo-lambda names a folder after the binary (`ingest`); who packs for several projects may prefer the function's name.
  const folders = [functionName(name), name].map((folder) => join(path, folder));
  const folder = folders.find((candidate) => existsSync(join(candidate, 'bootstrap')));
  if (folder === undefined) {
    throw new Error(`no bootstrap in ${folders.join(' or ')}: build the functions first (infra/README.md)`);
  }
  return Code.fromAsset(folder);
}

const DESCRIPTIONS: Record<FunctionName, string> = {
  ingest: 'firn: records of a topic to staged Parquet files and intents',
  commit: 'firn: staged intents to one snapshot of a table',
  ddl: 'firn: a newer source schema to the table schema',
  mapping: 'firn: announced topics to event source mappings',
  maintain: 'firn: removes old intents and files that nothing names',
};
