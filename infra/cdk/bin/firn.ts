// The CDK app. Run by node itself (it strips the types), by the CDK CLI, or by anything that sets these two variables:
//   CDK_CONTEXT_JSON  the settings of lib/settings.ts as a JSON object
//   CDK_OUTDIR        where cdk.out is to be written

import { App } from 'aws-cdk-lib';

import { readSettings } from '../lib/settings.ts';
import { FirnStack } from '../lib/stack.ts';

const app = new App();
const settings = readSettings((name) => app.node.tryGetContext(name));
new FirnStack(app, settings.stackName, settings);
app.synth();
