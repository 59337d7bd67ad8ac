// What each function may do, and nothing more.
//
// Every function may list the bucket, because S3 answers "forbidden" instead of "not found" to a reader who may not,
// and "not found" is an answer that the commit protocol lives on.

import { Aws } from 'aws-cdk-lib';
import { ManagedPolicy, PolicyStatement } from 'aws-cdk-lib/aws-iam';
import type { Function as LambdaFunction } from 'aws-cdk-lib/aws-lambda';

import type { Construct } from 'constructs';

import { functionName, type FirnFunctions } from './functions.ts';
import type { Settings } from './settings.ts';

interface Places {
  readonly bucketArn: string;
  readonly queueArn: string;
}

export function grantAll(functions: FirnFunctions, settings: Settings, places: Places): void {
  const objects = (...prefixes: string[]) => prefixes.map((prefix) => `${places.bucketArn}/${prefix}*`);
  const metadata = `${places.bucketArn}/tables/*/metadata/*`;
  const glue = [
    arn('glue', 'catalog'),
    arn('glue', `database/${settings.database}`),
    arn('glue', `table/${settings.database}/*`),
  ];
  const ddl = arn('lambda', `function:${functionName('ddl')}`);

  for (const one of Object.values(functions)) {
    allow(one, ['s3:ListBucket'], [places.bucketArn]);
  }

  // Who loses a race for the pointer removes the metadata that it wrote for it; all else is removed by maintain alone.
  for (const one of [functions.ingest, functions.commit, functions.ddl]) {
    allow(one, ['s3:DeleteObject'], [metadata]);
  }

  // Stages, sets aside, and commits inline when a table is due.
  allow(functions.ingest, ['s3:GetObject'], [...objects('control/'), metadata]);
  allow(functions.ingest, ['s3:PutObject'], objects('control/i/', 'tables/', 'quarantine/'));
  allow(functions.ingest, ['glue:GetTable', 'glue:UpdateTable'], glue);
  allow(functions.ingest, ['lambda:InvokeFunction'], [ddl]);
  allow(functions.ingest, ['sqs:SendMessage'], [places.queueArn]);

  // Reads intents, and writes metadata about files that are there already; looks again later at what is not due.
  allow(functions.commit, ['s3:GetObject'], [...objects('control/'), metadata]);
  allow(functions.commit, ['s3:PutObject'], [metadata]);
  allow(functions.commit, ['glue:GetTable', 'glue:UpdateTable'], glue);
  allow(functions.commit, ['lambda:InvokeFunction'], [ddl]);
  allow(functions.commit, ['sqs:SendMessage'], [places.queueArn]);

  // The only one that makes a table.
  allow(functions.ddl, ['s3:GetObject'], [...objects('control/registry/', 'control/schema/'), metadata]);
  allow(functions.ddl, ['s3:PutObject'], [metadata]);
  allow(functions.ddl, ['glue:GetTable', 'glue:CreateTable', 'glue:UpdateTable'], glue);

  // Reads what names files, and removes what nothing names: never a reference, a document, or what is in quarantine.
  allow(
    functions.maintain,
    ['s3:GetObject'],
    [...objects('control/registry/', 'control/i/', 'control/agent/*/copy/', 'control/maintain/'), metadata],
  );
  allow(functions.maintain, ['s3:PutObject'], objects('control/maintain/'));
  allow(functions.maintain, ['s3:DeleteObject'], [...objects('control/i/', 'tables/*/data/'), metadata]);
  allow(functions.maintain, ['glue:GetTable'], glue);

  allow(functions.mapping, ['s3:GetObject'], objects('control/registry/'));
  if (settings.clusterArn !== undefined) {
    grantMapping(functions);
    grantPoller(functions.ingest, settings.clusterArn);
  }
}

/** What the role of the machine that runs the agent needs; attaching it is for who runs that machine. */
export function agentPolicy(scope: Construct, places: Places): ManagedPolicy {
  const objects = (...prefixes: string[]) => prefixes.map((prefix) => `${places.bucketArn}/${prefix}*`);
  return new ManagedPolicy(scope, 'AgentPolicy', {
    description: 'What firn capture agents may do with the bucket',
    statements: [
      new PolicyStatement({ actions: ['s3:ListBucket'], resources: [places.bucketArn] }),
      new PolicyStatement({ actions: ['s3:GetObject'], resources: objects('control/') }),
      // Copied rows go straight to the tables' files.
      new PolicyStatement({
        actions: ['s3:PutObject'],
        resources: objects('control/', 'quarantine/', 'tables/'),
      }),
    ],
  });
}

/** Mappings of firn-ingest and of no other function. */
function grantMapping(functions: FirnFunctions): void {
  const ingest = arn('lambda', `function:${functionName('ingest')}`);
  // Neither action knows a resource; creating is limited by the function that the mapping is for.
  allow(functions.mapping, ['lambda:ListEventSourceMappings'], ['*']);
  functions.mapping.addToRolePolicy(
    new PolicyStatement({
      actions: ['lambda:CreateEventSourceMapping'],
      resources: ['*'],
      conditions: { ArnEquals: { 'lambda:FunctionArn': ingest } },
    }),
  );
}

/** Lambda's pollers act with the role of the function that they feed. */
function grantPoller(ingest: LambdaFunction, clusterArn: string): void {
  const within = (kind: string) => `${clusterArn.replace(':cluster/', `:${kind}/`)}/*`;
  allow(ingest, ['kafka:DescribeCluster', 'kafka:DescribeClusterV2', 'kafka:GetBootstrapBrokers'], [clusterArn]);
  allow(ingest, ['kafka-cluster:Connect', 'kafka-cluster:DescribeClusterDynamicConfiguration'], [clusterArn]);
  allow(ingest, ['kafka-cluster:DescribeTopic', 'kafka-cluster:ReadData'], [within('topic')]);
  allow(ingest, ['kafka-cluster:DescribeGroup', 'kafka-cluster:AlterGroup'], [within('group')]);
  // EC2 knows no resource for these; AWS's own policy for MSK event sources has the same line.
  allow(
    ingest,
    [
      'ec2:CreateNetworkInterface',
      'ec2:DeleteNetworkInterface',
      'ec2:DescribeNetworkInterfaces',
      'ec2:DescribeSecurityGroups',
      'ec2:DescribeSubnets',
      'ec2:DescribeVpcs',
    ],
    ['*'],
  );
}

function allow(to: LambdaFunction, actions: string[], resources: string[]): void {
  to.addToRolePolicy(new PolicyStatement({ actions, resources }));
}

function arn(service: string, rest: string): string {
  return `arn:${Aws.PARTITION}:${service}:${Aws.REGION}:${Aws.ACCOUNT_ID}:${rest}`;
}
