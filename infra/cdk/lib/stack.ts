// One deployment of firn: a bucket, a Glue database, five functions, a queue, schedules and alarms.
//
// Flow: agent -> MSK -> firn-ingest -> bucket, queue -> firn-commit -> Glue; firn-ddl and firn-mapping on call;
// firn-maintain removes what nothing needs any more.
//
// What always holds:
// - Nothing in the bucket is removed by a lifecycle rule: an intent or a staged file that goes too early is lost data, and
//   only firn-maintain knows what is needed.
// - Bucket, database and log of a deleted stack stay, but for the logs.
// - The app is the same for AWS and for the local cloud. `localEndpoint` points the functions there and drops what only an
//   account can answer (its CDK bootstrap version, TLS).

import { Aws, CfnOutput, DefaultStackSynthesizer, Duration, RemovalPolicy, Stack } from 'aws-cdk-lib';
import { Rule, RuleTargetInput, Schedule } from 'aws-cdk-lib/aws-events';
import { LambdaFunction } from 'aws-cdk-lib/aws-events-targets';
import { CfnDatabase } from 'aws-cdk-lib/aws-glue';
import { StartingPosition } from 'aws-cdk-lib/aws-lambda';
import { ManagedKafkaEventSource, SqsEventSource } from 'aws-cdk-lib/aws-lambda-event-sources';
import { BlockPublicAccess, Bucket, BucketEncryption, ObjectOwnership } from 'aws-cdk-lib/aws-s3';
import { Queue, QueueEncryption } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';

import { addAlarms } from './alarms.ts';
import { functionName, makeFunctions, type FirnFunctions } from './functions.ts';
import { agentPolicy, grantAll } from './permissions.ts';
import type { Settings } from './settings.ts';

export class FirnStack extends Stack {
  constructor(scope: Construct, id: string, settings: Settings) {
    const local = settings.localEndpoint !== undefined;
    super(scope, id, {
      description: 'firn: changes of databases as Apache Iceberg tables',
      synthesizer: new DefaultStackSynthesizer({ generateBootstrapVersionRule: !local }),
    });

    const bucket = new Bucket(this, 'Bucket', {
      bucketName: settings.bucketName,
      versioned: false,
      encryption: BucketEncryption.S3_MANAGED,
      blockPublicAccess: BlockPublicAccess.BLOCK_ALL,
      objectOwnership: ObjectOwnership.BUCKET_OWNER_ENFORCED,
      enforceSSL: !local,
      removalPolicy: RemovalPolicy.RETAIN,
    });
    const database = new CfnDatabase(this, 'Database', {
      catalogId: Aws.ACCOUNT_ID,
      databaseInput: { name: settings.database, description: 'Tables written by firn' },
    });
    database.applyRemovalPolicy(RemovalPolicy.RETAIN);

    // One delayed message per table that has something staged. No redrive: a message says "look at this table", and
    // throwing it away would leave the tail of a burst to the sweep. Its age is alarmed instead.
    const queue = new Queue(this, 'CommitQueue', {
      encryption: QueueEncryption.SQS_MANAGED,
      enforceSSL: !local,
      // AWS asks for six times the timeout of the function behind the queue.
      visibilityTimeout: Duration.seconds(6 * settings.functions.commit.timeoutSeconds),
      retentionPeriod: Duration.days(4),
    });

    const functions = makeFunctions(this, settings, { bucketName: bucket.bucketName, queueUrl: queue.queueUrl });
    const places = { bucketArn: bucket.bucketArn, queueArn: queue.queueArn };
    grantAll(functions, settings, places);
    const agent = agentPolicy(this, places);
    this.#feed(settings, functions, queue);
    addAlarms(this, settings, functions, queue);

    new CfnOutput(this, 'BucketName', { value: bucket.bucketName });
    new CfnOutput(this, 'DatabaseName', { value: settings.database });
    new CfnOutput(this, 'QueueUrl', { value: queue.queueUrl });
    new CfnOutput(this, 'AgentPolicyArn', { value: agent.managedPolicyArn });
    new CfnOutput(this, 'IngestFunctionName', { value: functions.ingest.functionName });
    new CfnOutput(this, 'CommitFunctionName', { value: functions.commit.functionName });
    new CfnOutput(this, 'DdlFunctionName', { value: functions.ddl.functionName });
    new CfnOutput(this, 'MappingFunctionName', { value: functions.mapping.functionName });
    new CfnOutput(this, 'MaintainFunctionName', { value: functions.maintain.functionName });
  }

  /** What invokes the functions. */
  #feed(settings: Settings, functions: FirnFunctions, queue: Queue): void {
    functions.commit.addEventSource(
      new SqsEventSource(queue, {
        batchSize: 10,
        maxBatchingWindow: Duration.seconds(0),
        reportBatchItemFailures: true,
        // Few, because those that look at one busy table at once race for its commits. A stand-in of Lambda may not know it.
        ...(settings.localEndpoint === undefined && { maxConcurrency: settings.commitConcurrency }),
      }),
    );
    new Rule(this, 'Sweep', {
      description: 'Commits what is staged and due in any table: the net under the queue',
      schedule: Schedule.rate(Duration.minutes(settings.sweepMinutes)),
      targets: [
        // The next sweep comes anyway: a late one has no use.
        new LambdaFunction(functions.commit, {
          event: RuleTargetInput.fromObject({ sweep: true }),
          retryAttempts: 0,
        }),
      ],
    });
    new Rule(this, 'Remove', {
      description: 'Removes intents that are committed and old, and files that nothing names',
      schedule: Schedule.rate(Duration.hours(settings.maintainHours)),
      targets: [
        new LambdaFunction(functions.maintain, {
          event: RuleTargetInput.fromObject({ maintain: true }),
          retryAttempts: 0,
        }),
      ],
    });
    if (settings.clusterArn === undefined) return;

    new Rule(this, 'Map', {
      description: 'Gives each topic that an agent has announced its event source mapping',
      schedule: Schedule.rate(Duration.minutes(settings.mappingMinutes)),
      targets: [
        new LambdaFunction(functions.mapping, { event: RuleTargetInput.fromObject({ map: true }), retryAttempts: 0 }),
      ],
    });
    for (const topic of settings.topics) {
      functions.ingest.addEventSource(
        new ManagedKafkaEventSource({
          clusterArn: settings.clusterArn,
          topic,
          // The group that firn-mapping would give it, so that either may take the topic over from the other.
          consumerGroupId: `${functionName('ingest')}.${topic}`,
          // LATEST can miss what was written while the mapping came up.
          startingPosition: StartingPosition.TRIM_HORIZON,
          batchSize: 10_000,
          maxBatchingWindow:
            settings.batchWindowSeconds === undefined ? undefined : Duration.seconds(settings.batchWindowSeconds),
          provisionedPollerConfig: {
            minimumPollers: 1,
            maximumPollers: settings.maximumPollers,
            pollerGroupName: settings.pollerGroup,
          },
          // Neither a retry limit nor an on-failure destination: either one would step over records.
          reportBatchItemFailures: true,
        }),
      );
    }
  }
}
